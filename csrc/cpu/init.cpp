// Random fills whose element i is a pure function of (seed, stream, i), and orthogonal matrices made from normal ones.
#include <initializer_list>

#include "core/rng.h"
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

// Inverse of the error function: Giles, "Approximating the erfinv function", 2010, single precision.
vf erfinv(vf x) {
  vf w = -vlog((vset(1.0f) - x) * (vset(1.0f) + x));
  vf c = w - vset(2.5f);
  vf p = vset(2.81022636e-08f);
  for (float k : {3.43273939e-07f, -3.5233877e-06f, -4.39150654e-06f, 0.00021858087f, -0.00125372503f, -0.00417768164f,
                  0.246640727f, 1.50140941f})
    p = vfma(p, c, vset(k));
  vf t = vsqrt(w) - vset(3.0f);
  vf q = vset(-0.000200214257f);
  for (float k : {0.000100950558f, 0.00134934322f, -0.00367342844f, 0.00573950773f, -0.0076224613f, 0.00943887047f,
                  1.00167406f, 2.83297682f})
    q = vfma(q, t, vset(k));
  return vselect_gt(vset(5.0f), w, p, q) * x;
}

// Sixteen values: elements 16 block .. 16 block + 15.
vf draw(const uint64_t* key, int64_t block, Distribution kind, float a, float b) {
  float u[W];
  for (int i = 0; i < 4; ++i) {
    Philox4 r = philox(key[0], key[1], static_cast<uint64_t>(4 * block + i));
    // Normal numbers take the middles of 2^23 steps: all exact, so that neither 0 nor 1 goes to the inverse.
    for (int l = 0; l < 4; ++l)
      u[4 * i + l] =
          kind == Distribution::uniform ? uniform_from(r.x[l]) : static_cast<float>(r.x[l] >> 9) * 0x1p-23f + 0x1p-24f;
  }
  vf v = vload(u);
  if (kind == Distribution::uniform) return vfma(v, vset(b - a), vset(a));
  // normal by inversion; the truncated one maps to the central 95.45 %
  float share = kind == Distribution::truncated_normal ? 0.954499736f : 1.0f;
  vf centred = vfma(v, vset(2.0f), vset(-1.0f));
  return vfma(erfinv(centred * vset(share)) * vset(1.41421356f), vset(b), vset(a));
}

}  // namespace

int64_t random_workspace(const RandomArgs*, int32_t) { return 0; }
int64_t orthogonal_workspace(const OrthogonalArgs*, int32_t) { return 0; }

Status random(Context* ctx, const RandomArgs* a) {
  if (!unit_stride(0, a->n, {a->out})) return Status::unsupported;
  return by_type(a->out.dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(ctx, (a->n + W - 1) / W, 256, [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        put(static_cast<T*>(a->out.data) + i * W,
            draw(a->key, i, static_cast<Distribution>(a->distribution), a->a, a->b), a->n - i * W, a->out.accumulate);
    });
    return Status::ok;
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
