// exp, log, tanh and sigmoid as fma polynomials: the same bits on every table, within 2-3 ulp of libm (the normal
// distribution's tail: 7).
// Range reduction as in Cody and Waite, "Software Manual for the Elementary Functions", 1980; coefficients are
// Taylor and minimax series on the reduced ranges.
#pragma once
#include "core/simd.h"

namespace gristmill::GM_ISA {

inline vf vround(vf x) { return (x + vset(kMagic)) - vset(kMagic); }  // to nearest even, |x| < 2^22

// exp(n ln 2 + r) for |r| <= ln(2) / 2: the polynomial is off by 0.06 ulp.
inline vf vexp_reduced(vf n, vf r) {
  vf p = vset(1.381459879e-3f);
  p = vfma(p, r, vset(8.368716575e-3f));
  p = vfma(p, r, vset(4.166838899e-2f));
  p = vfma(p, r, vset(1.666652113e-1f));
  p = vfma(p, r, vset(4.999999404e-1f));
  p = vfma(p, r, vset(1.0f));
  return vscale(vfma(p, r, vset(1.0f)), n);
}

inline vf vexp(vf x) {
  x = vmin(vset(89.0f), vmax(vset(-104.5f), x));  // the operand order lets NaN through
  vf n = vfma(x, vset(1.44269504f), vset(kMagic)) - vset(kMagic);
  vf r = vfma(n, vset(-0.693359375f), x);
  return vexp_reduced(n, vfma(n, vset(2.12194440e-4f), r));
}

// exp(a b) of the unrounded product, for |a b| up to 150.
inline vf vexp_product(vf a, vf b) {
  vf n = vfma(a * b, vset(1.44269504f), vset(kMagic)) - vset(kMagic);
  vf r = vfma(a, b, n * vset(-0.693359375f));  // this product is exact
  return vexp_reduced(n, vfma(n, vset(2.12194440e-4f), r));
}

// Natural logarithm of x > 0; -inf at 0, NaN below.
inline vf vlog(vf x) {
  float f[W], e[W];
  vstore(f, x);
  for (int i = 0; i < W; ++i) {
    float denormal = f[i] < 1.17549435e-38f ? 1.0f : 0.0f;
    float scaled = denormal > 0.0f ? f[i] * 8388608.0f : f[i];
    uint32_t u;
    std::memcpy(&u, &scaled, 4);
    // mantissa in [sqrt(1/2), sqrt(2))
    uint32_t shifted = u - 0x3f3504f3u;
    int32_t exponent = static_cast<int32_t>(shifted) >> 23;
    u = (shifted & 0x007fffffu) + 0x3f3504f3u;
    std::memcpy(&f[i], &u, 4);
    e[i] = static_cast<float>(exponent) - denormal * 23.0f;
  }
  vf m = vload(f) - vset(1.0f), n = vload(e), z = m * m;
  vf p = vset(7.0376836292e-2f);
  p = vfma(p, m, vset(-1.1514610310e-1f));
  p = vfma(p, m, vset(1.1676998740e-1f));
  p = vfma(p, m, vset(-1.2420140846e-1f));
  p = vfma(p, m, vset(1.4249322787e-1f));
  p = vfma(p, m, vset(-1.6668057665e-1f));
  p = vfma(p, m, vset(2.0000714765e-1f));
  p = vfma(p, m, vset(-2.4999993993e-1f));
  p = vfma(p, m, vset(3.3333331174e-1f));
  vf y = p * m * z;
  y = vfma(n, vset(-2.12194440e-4f), y);
  y = vfma(z, vset(-0.5f), y);
  y = vfma(n, vset(0.693359375f), m + y);
  float out[W], in[W];
  vstore(out, y);
  vstore(in, x);
  for (int i = 0; i < W; ++i) {
    if (!(in[i] > 0.0f)) out[i] = in[i] == 0.0f ? -INFINITY : NAN;
    if (in[i] == INFINITY) out[i] = INFINITY;
  }
  return vload(out);
}

inline vf vsigmoid(vf x) { return vset(1.0f) / (vset(1.0f) + vexp(-x)); }

// Near 0 a series, elsewhere 1 - 2 / (exp(2|x|) + 1) with the sign put back.
inline vf vtanh(vf x) {
  vf a = vabs(x), z = x * x;
  vf p = vset(-5.70498872745e-3f);
  p = vfma(p, z, vset(2.06390887954e-2f));
  p = vfma(p, z, vset(-5.37397155531e-2f));
  p = vfma(p, z, vset(1.33314422036e-1f));
  p = vfma(p, z, vset(-3.33332819422e-1f));
  vf small = vfma(p * z, x, x);
  vf big = vset(1.0f) - vset(2.0f) / (vexp(a + a) + vset(1.0f));
  big = vselect_gt(vzero(), x, -big, big);
  return vselect_gt(vset(0.625f), a, small, big);
}

// The normal distribution: exp(-m^2/2), and the tail P(X < -m), for m >= 0; both are 0 from 15 on.
struct Normal {
  vf density, tail;
};

inline Normal vnormal(vf m) {
  m = vmin(vset(15.0f), m);
  vf e = vexp_product(m * vset(-0.5f), m);  // the rounding of a square of 90 would cost 45 ulp
  // tail / e = t P(t) with t = 1 / (1 + 0.3 m): P fitted to 0.4 ulp on [0, 15]
  vf t = vset(1.0f) / vfma(m, vset(0.3f), vset(1.0f));
  vf p = vset(-2.06290167e-2f);
  p = vfma(p, t, vset(1.12466723e-1f));
  p = vfma(p, t, vset(-2.28289306e-1f));
  p = vfma(p, t, vset(1.91889286e-1f));
  p = vfma(p, t, vset(-7.95141011e-2f));
  p = vfma(p, t, vset(9.62075442e-2f));
  p = vfma(p, t, vset(7.83713311e-2f));
  p = vfma(p, t, vset(1.10239536e-1f));
  p = vfma(p, t, vset(1.19571298e-1f));
  p = vfma(p, t, vset(1.19686715e-1f));
  return Normal{e, p * t * e};
}

}  // namespace gristmill::GM_ISA
