// exp, log, tanh and sigmoid as fma polynomials: the same bits on every table, within 2-3 ulp of libm (the normal
// distribution's tail: 7).
// Range reduction as in Cody and Waite, "Software Manual for the Elementary Functions", 1980; coefficients are
// Taylor and minimax series on the reduced ranges.
#pragma once
#include "core/simd.h"

namespace gristmill::GM_ISA {

GM_INLINE vf vround(vf x) { return (x + vset(kMagic)) - vset(kMagic); }  // to nearest even, |x| < 2^22

// exp(n ln 2 + r) for |r| <= ln(2) / 2: the polynomial is off by 0.06 ulp.
GM_INLINE vf vexp_reduced(vf n, vf r) {
  vf p = vset(1.381459879e-3f);
  p = vfma(p, r, vset(8.368716575e-3f));
  p = vfma(p, r, vset(4.166838899e-2f));
  p = vfma(p, r, vset(1.666652113e-1f));
  p = vfma(p, r, vset(4.999999404e-1f));
  p = vfma(p, r, vset(1.0f));
  return vscale(vfma(p, r, vset(1.0f)), n);
}

GM_INLINE vf vexp(vf x) {
  x = vmin(vset(89.0f), vmax(vset(-104.5f), x));  // the operand order lets NaN through
  vf n = vfma(x, vset(1.44269504f), vset(kMagic)) - vset(kMagic);
  vf r = vfma(n, vset(-0.693359375f), x);
  return vexp_reduced(n, vfma(n, vset(2.12194440e-4f), r));
}

// exp(a b) of the unrounded product, for |a b| up to 150.
GM_INLINE vf vexp_product(vf a, vf b) {
  vf n = vfma(a * b, vset(1.44269504f), vset(kMagic)) - vset(kMagic);
  vf r = vfma(a, b, n * vset(-0.693359375f));  // this product is exact
  return vexp_reduced(n, vfma(n, vset(2.12194440e-4f), r));
}

// Natural logarithm of x > 0; -inf at 0, NaN below.
GM_INLINE vf vlog(vf x) {
  vf least = vset(1.17549435e-38f), n;
  vf m = vsplit(vselect_gt(least, x, x * vset(8388608.0f), x), &n) - vset(1.0f), z = m * m;
  n = n - vselect_gt(least, x, vset(23.0f), vzero());
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
  y = vselect_gt(x, vset(3.40282347e38f), x, y);
  vf none = vselect_gt(vzero(), x, vset(NAN), x - vset(INFINITY));
  return vselect_gt(x, vzero(), y, none);
}

GM_INLINE vf vsigmoid(vf x) { return vset(1.0f) / (vset(1.0f) + vexp(-x)); }

// Near 0 a series, elsewhere 1 - 2 / (exp(2|x|) + 1) with the sign put back.
GM_INLINE vf vtanh(vf x) {
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

// The normal distribution: exp(-m^2/2), and the tail P(X < -m), for 0 <= m <= 15; at 15 both are 0.
struct Normal {
  vf density, tail;
};

GM_INLINE Normal vnormal(vf m) {
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
