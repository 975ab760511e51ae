// exp, log, tanh and sigmoid as fma polynomials: the same bits on every table, within 2-3 ulp of libm. What bfloat16
// is to hold (T = uint16_t) takes fewer terms.
// Range reduction as in Cody and Waite, "Software Manual for the Elementary Functions", 1980; coefficients are
// Taylor and minimax series on the reduced ranges.
#pragma once
#include "core/simd.h"

namespace gristmill::GM_ISA {

GM_INLINE vf vround(vf x) { return (x + vset(kMagic)) - vset(kMagic); }  // to nearest even, |x| < 2^22

// (exp(r) - 1) / r for |r| <= ln(2) / 2: the polynomial is off by 0.06 ulp of exp(r).
GM_INLINE vf vexp_slope(vf r) {
  vf p = vset(1.381459879e-3f);
  p = vfma(p, r, vset(8.368716575e-3f));
  p = vfma(p, r, vset(4.166838899e-2f));
  p = vfma(p, r, vset(1.666652113e-1f));
  p = vfma(p, r, vset(4.999999404e-1f));
  return vfma(p, r, vset(1.0f));
}

// exp(n ln 2 + r).
GM_INLINE vf vexp_reduced(vf n, vf r) { return vscale(vfma(vexp_slope(r), r, vset(1.0f)), n); }

GM_INLINE vf vexp(vf x) {
  x = vmin(vset(89.0f), vmax(vset(-104.5f), x));  // the operand order lets NaN through
  vf n = vfma(x, vset(1.44269504f), vset(kMagic)) - vset(kMagic);
  vf r = vfma(n, vset(-0.693359375f), x);
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

// 2^t for |t| up to 250 where the result is stored as T: off by 4 U, or as bfloat16 by 2^-13 of itself.
template <class T>
GM_INLINE vf vexp2(vf t) {
  vf n = vround(t), f = t - n, p;
  if constexpr (sizeof(T) == 2) {
    p = vset(5.50079606e-2f);
    p = vfma(p, f, vset(2.42214918e-1f));
    p = vfma(p, f, vset(6.93283439e-1f));
  } else {
    p = vset(1.32645911e-3f);
    p = vfma(p, f, vset(9.67161916e-3f));
    p = vfma(p, f, vset(5.55073507e-2f));
    p = vfma(p, f, vset(2.40222409e-1f));
    p = vfma(p, f, vset(6.93147004e-1f));
  }
  return vscale(vfma(p, f, vset(1.0f)), n);
}

// exp(x) for a result stored as T.
template <class T>
GM_INLINE vf vexp_for(vf x) {
  if constexpr (sizeof(T) == 4) return vexp(x);
  return vexp2<T>(vmin(vset(150.0f), vmax(vset(-150.0f), x * vset(1.44269504f))));
}

template <class T>
GM_INLINE vf vsigmoid(vf x) {
  return vset(1.0f) / (vset(1.0f) + vexp_for<T>(-x));
}

// e / (e + 2) with e = exp(2|x|) - 1 = 2^n (exp(r) - 1) + (2^n - 1), where nothing cancels, and the sign put back: off
// by 4 U, as bfloat16 by 6e-4 of itself. From 10 on it is 1.
template <class T>
GM_INLINE vf vtanh(vf x) {
  vf a = vmin(vset(20.0f), vabs(x) * vset(2.0f)), n, part;
  if constexpr (sizeof(T) == 2) {
    vf t = a * vset(1.44269504f), f;
    n = vround(t), f = t - n;
    part = f * vfma(vfma(vset(5.50079606e-2f), f, vset(2.42214918e-1f)), f, vset(6.93283439e-1f));
  } else {
    n = vround(a * vset(1.44269504f));
    vf r = vfma(n, vset(2.12194440e-4f), vfma(n, vset(-0.693359375f), a));
    part = r * vexp_slope(r);
  }
  vf power = vscale(vset(1.0f), n), e = vfma(power, part, power - vset(1.0f));
  return vsign(e / (e + vset(2.0f)), x);
}

// The normal distribution: exp(-m^2/2), and the tail P(X < -m), for 0 <= m <= 15; at 15 both are 0. The argument of
// the exponential counts itself, m^2/2, in roundings twice.
struct Normal {
  vf density, tail;
};

template <class T>
GM_INLINE Normal vnormal(vf m) {
  vf e = vexp2<T>(m * vset(-0.721347520f) * m);
  // tail / e, a quotient fitted on [0, 15] to 0.4 U, or 2^-15
  vf p = vset(6.31272793e-2f), q = vset(1.58074245e-1f);
  if constexpr (sizeof(T) == 2) {
    p = vfma(p, m, vset(2.79689550e-1f));
    p = vfma(p, m, vset(5.00012875e-1f));
    q = vfma(q, m, vset(7.05920696e-1f));
    q = vfma(q, m, vset(1.35805702f));
  } else {
    p = vset(4.15321626e-3f), q = vset(1.04104578e-2f);
    p = vfma(p, m, vset(4.0881034e-2f));
    p = vfma(p, m, vset(1.83968857e-1f));
    p = vfma(p, m, vset(4.39283043e-1f));
    p = vfma(p, m, vset(0.5f));
    q = vfma(q, m, vset(1.02479674e-1f));
    q = vfma(q, m, vset(4.71407950e-1f));
    q = vfma(q, m, vset(1.20554709f));
    q = vfma(q, m, vset(1.67645109f));
  }
  return Normal{e, e * p / vfma(q, m, vset(1.0f))};
}

}  // namespace gristmill::GM_ISA
