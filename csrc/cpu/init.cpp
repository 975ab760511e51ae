// Random fills whose element i is a pure function of (seed, stream, i), and orthogonal matrices made from normal ones.
#include "cpu/draws.h"
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

// -log of the first word's number in (0, 1], never 0: the largest normal number is sqrt(66 ln 2) = 6.76. The polynomial
// of vlog, within 2 ulp.
template <int count>
inline void minus_log(const vu (&word)[count], vf (&out)[count]) {
  vf n[count], m[count], p[count];
  for (int i = 0; i < count; ++i) {
    vf u = vfma(vunsigned(word[i]), vset(0x1p-32f), vset(0x1p-33f));
    vu shifted = vbits(u) - vuset(0x3f3504f3u);  // mantissa in [sqrt(1/2), sqrt(2))
    n[i] = vsigned(vsar<23>(shifted));
    m[i] = vfloat((shifted & vuset(0x007fffffu)) + vuset(0x3f3504f3u)) - vset(1.0f);
    p[i] = vset(7.0376836292e-2f);
  }
  for (float k : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                  2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
    for (int i = 0; i < count; ++i) p[i] = vfma(p[i], m[i], vset(k));
  for (int i = 0; i < count; ++i) {
    vf z = m[i] * m[i];
    out[i] = vfma(n[i], vset(-0.693147181f), vfma(z, vset(0.5f), -vfma(p[i] * m[i], z, m[i])));
  }
}

// Box and Muller, "A note on the generation of random normal deviates", 1958: two normal numbers of two words. The
// angle is 45 degrees off pi/4 x, -1 <= x <= 1, and two bits choose the quadrant: no reduction and no exchange.
// Several pairs in turns: one is a chain of a hundred cycles.
template <int count>
inline void box_muller(const vu (&first)[count], const vu (&second)[count], vf (&a)[count], vf (&b)[count]) {
  vf radius[count], x[count], z[count], s[count], c[count];
  minus_log(first, radius);
  for (int i = 0; i < count; ++i) {
    radius[i] = vsqrt(radius[i]);  // over sqrt(2), which cos(45) takes up
    x[i] = vsigned(vshl<2>(second[i])) * vset(0x1p-31f);
    z[i] = x[i] * x[i];
    s[i] = vset(-3.59504484e-5f), c[i] = vset(3.53133444e-6f);  // fitted to 0.06 ulp
  }
  for (float k : {2.49001e-3f, -8.0745436e-2f, 7.85398185e-1f})
    for (int i = 0; i < count; ++i) s[i] = vfma(s[i], z[i], vset(k));
  for (float k : {-3.25942005e-4f, 1.5854327e-2f, -3.08425128e-1f, 1.0f})
    for (int i = 0; i < count; ++i) c[i] = vfma(c[i], z[i], vset(k));
  for (int i = 0; i < count; ++i) {
    vu sign = vuset(0x80000000u);
    a[i] = vfloat(vbits(vfma(-x[i], s[i], c[i]) * radius[i]) ^ (second[i] & sign));
    b[i] = vfloat(vbits(vfma(x[i], s[i], c[i]) * radius[i]) ^ (vshl<1>(second[i]) & sign));
  }
}

// The inverse of the distribution function between -2 and 2 deviations, a rational function of 1 - x^2 for the middle x
// of one of 2^23 steps between -1 and 1: 6 ulp.
vf truncated(vu word) {
  vf x = vfma(vsigned(vshr<9>(word)), vset(0x1p-22f), vset(0x1p-23f - 1.0f));
  vf w = vfma(-x, x, vset(1.0f)), p = vset(0.31684554f), q = vset(0.7736668f);
  for (float k : {3.919796f, 5.3830724f, 1.7528809f, 0.14452936f}) p = vfma(p, w, vset(k));
  for (float k : {3.9929066f, 3.7885458f, 1.0f, 0.072264686f}) q = vfma(q, w, vset(k));
  return x * (p / q);
}

// The elements of two draws before mean and deviation.
template <Distribution kind>
inline void standard(const Draw (&d)[2], vf (&v)[2][4]) {
  if (kind == Distribution::normal) {
    vf a[4], b[4];
    box_muller<4>({d[0].w[0], d[0].w[2], d[1].w[0], d[1].w[2]}, {d[0].w[1], d[0].w[3], d[1].w[1], d[1].w[3]}, a, b);
    for (int i = 0; i < 4; ++i) v[i / 2][i % 2 * 2] = a[i], v[i / 2][i % 2 * 2 + 1] = b[i];
  }
  for (int h = 0; h < 2; ++h) {
    for (int j = 0; j < 4; ++j) {
      if (kind == Distribution::uniform) v[h][j] = vsigned(vshr<8>(d[h].w[j]));
      if (kind == Distribution::truncated_normal) v[h][j] = truncated(d[h].w[j]);
    }
    side_by_side(v[h]);
  }
}

template <Distribution kind, class T>
void fill(Context* ctx, const RandomArgs* a) {
  constexpr int64_t kPair = 2 * kDraw;
  for_rows(ctx, (a->n + kPair - 1) / kPair, 128, [=](int64_t first, int64_t last) {
    Keys keys(a->key, first * kPair / 4);
    vf offset = vset(a->a), scale = vset(kind == Distribution::uniform ? (a->b - a->a) * 0x1p-24f : a->b);
    for (int64_t i = first * kPair; i < last * kPair; i += kPair) {
      Draw d[2];
      vf v[2][4];
      draw(keys, static_cast<uint64_t>(i / kDraw), d);
      standard<kind>(d, v);
      T* out = static_cast<T*>(a->out.data) + i;
      bool whole = a->n - i >= kPair && !a->out.accumulate;
      for (int j = 0; j < 8; ++j) {
        vf y = vfma(v[j / 4][j % 4], scale, offset);
        if (whole)
          vstore(out + j * W, y);
        else if (a->n - i > j * W)
          put(out + j * W, y, a->n - i - j * W, a->out.accumulate);
      }
    }
  });
}

}  // namespace

int64_t random_workspace(const RandomArgs*, int32_t) { return 0; }
int64_t orthogonal_workspace(const OrthogonalArgs*, int32_t) { return 0; }

Status random(Context* ctx, const RandomArgs* a) {
  if (!unit_stride(0, a->n, {a->out})) return Status::unsupported;
  return by_type(a->out.dtype, [&](auto type) {
    using T = decltype(type);
    switch (static_cast<Distribution>(a->distribution)) {
      case Distribution::uniform: fill<Distribution::uniform, T>(ctx, a); return Status::ok;
      case Distribution::normal: fill<Distribution::normal, T>(ctx, a); return Status::ok;
      case Distribution::truncated_normal: fill<Distribution::truncated_normal, T>(ctx, a); return Status::ok;
    }
    return Status::unsupported;
  });
}

// Modified Gram-Schmidt, each vector against all before it, twice (Giraud et al., 2005: twice is enough).
Status orthogonal(Context*, const OrthogonalArgs* a) {
  if (a->out.dtype != DType::f32 || a->out.accumulate) return Status::unsupported;
  bool by_rows = a->rows <= a->cols;
  int64_t count = by_rows ? a->rows : a->cols, length = by_rows ? a->cols : a->rows;
  int64_t between = by_rows ? a->cols : 1, step = by_rows ? 1 : a->cols;
  float* m = static_cast<float*>(a->out.data);
  for (int64_t i = 0; i < count; ++i) {
    float* x = m + i * between;
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t j = 0; j < i; ++j) {
        const float* y = m + j * between;
        double dot = 0.0;
        for (int64_t k = 0; k < length; ++k) dot += static_cast<double>(x[k * step]) * y[k * step];
        for (int64_t k = 0; k < length; ++k) x[k * step] -= static_cast<float>(dot * y[k * step]);
      }
    double square = 0.0;
    for (int64_t k = 0; k < length; ++k) square += static_cast<double>(x[k * step]) * x[k * step];
    float inverse = static_cast<float>(1.0 / __builtin_sqrt(square));
    for (int64_t k = 0; k < length; ++k) x[k * step] *= inverse;
  }
  for (int64_t i = 0; i < a->rows * a->cols; ++i) m[i] *= a->gain;
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
