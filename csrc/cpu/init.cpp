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

// out (cols, rows) = x (rows, cols), in squares that stay in cache.
void transpose(Context* ctx, float* out, const float* x, int64_t rows, int64_t cols) {
  constexpr int64_t kSquare = 32;
  for_rows(ctx, rows, kSquare, [=](int64_t first, int64_t last) {
    for (int64_t c = 0; c < cols; c += kSquare)
      for (int64_t j = c; j < c + kSquare && j < cols; ++j)
        for (int64_t i = first; i < last; ++i) out[j * rows + i] = x[i * cols + j];
  });
}

float dot(const float* x, const float* y, int64_t n) {
  return vsum(
      sum_vectors(n, [=](int64_t k, auto w, vf sum) { return vfma(vload_n(x + k, w), vload_n(y + k, w), sum); }));
}

// x (length) loses what it has of the first `count` vectors (count, length), which are orthogonal and of length 1.
void project(Context* ctx, float* x, const float* vectors, float* products, int64_t count, int64_t length) {
  for_rows(ctx, count, kTask / length + 1, [=](int64_t first, int64_t last) {
    for (int64_t j = first; j < last; ++j) products[j] = dot(x, vectors + j * length, length);
  });
  for_rows(ctx, length, kTask / (count + 1) / W * W + 4 * W, [=](int64_t first, int64_t last) {
    for (int64_t j = 0; j < count; ++j) {
      vf product = vset(-products[j]);
      const float* y = vectors + j * length + first;
      each_vector(last - first, [=](int64_t k, auto w) {
        vstore_n(x + first + k, vfma(product, vload_n(y + k, w), vload_n(x + first + k, w)), w);
      });
    }
  });
}

}  // namespace

int64_t random_workspace(const RandomArgs*, int32_t) { return 0; }
int64_t orthogonal_workspace(const OrthogonalArgs* a, int32_t) {
  bool tall = a->rows > a->cols;
  return static_cast<int64_t>(sizeof(float)) * (tall ? a->cols + a->rows * a->cols : a->rows);
}

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

// Each vector against all before it, twice (Giraud et al., 2005: twice is enough). The vectors are rows: a tall matrix
// is turned over for them.
Status orthogonal(Context* ctx, const OrthogonalArgs* a) {
  if (a->out.dtype != DType::f32 || a->out.accumulate) return Status::unsupported;
  if (ctx->workspace_bytes < orthogonal_workspace(a, 1)) return Status::workspace;
  bool tall = a->rows > a->cols;
  int64_t count = tall ? a->cols : a->rows, length = tall ? a->rows : a->cols;
  float *out = static_cast<float*>(a->out.data), *products = static_cast<float*>(ctx->workspace);
  float* vectors = tall ? products + count : out;
  if (tall) transpose(ctx, vectors, out, length, count);
  for (int64_t i = 0; i < count; ++i) {
    float* x = vectors + i * length;
    for (int pass = 0; pass < 2; ++pass) project(ctx, x, vectors, products, i, length);
    vf inverse = vset(1.0f / __builtin_sqrtf(dot(x, x, length)));
    each_vector(length, [=](int64_t k, auto w) { vstore_n(x + k, vload_n(x + k, w) * inverse, w); });
  }
  if (tall) transpose(ctx, out, vectors, count, length);
  vf gain = vset(a->gain);
  for_rows(ctx, count * length, kTask, [=](int64_t first, int64_t last) {
    each_vector(last - first,
                [=](int64_t k, auto w) { vstore_n(out + first + k, vload_n(out + first + k, w) * gain, w); });
  });
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
