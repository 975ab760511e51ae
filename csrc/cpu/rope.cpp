// Rotary positions: the pair (x_i, x_{i + D/2}) turns by position * theta^(-2i/D). Su et al., "RoFormer", 2021.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

float get(const float* p) { return *p; }
float get(const uint16_t* p) { return bf16_to_f32(*p); }

template <class T>
void turn(const RopeArgs* a, T* out, const T* x, const float* c, const float* s) {
  int64_t half = a->D / 2;
  bool add = a->out.accumulate;
  vf sign = vset(a->inverse ? -1.0f : 1.0f);
  auto each = [=](auto pair) {
    each_vector(half, [=](int64_t i, auto n) {
      vf x0, x1, cv = vload_n(c + i, n), sv = vload_n(s + i, n) * sign;
      pair(i, n, x0, x1);
      put(out + i, x0 * cv - x1 * sv, n, add);
      put(out + half + i, x1 * cv + x0 * sv, n, add);
    });
  };
  if (!a->interleaved)
    return each([=](int64_t i, auto n, vf& x0, vf& x1) { x0 = vload_n(x + i, n), x1 = vload_n(x + half + i, n); });
  each([=](int64_t i, int64_t n, vf& x0, vf& x1) {
    float lo[W] = {}, hi[W] = {};
    for (int64_t l = 0; l < n; ++l) lo[l] = get(x + 2 * (i + l)), hi[l] = get(x + 2 * (i + l) + 1);
    x0 = vload(lo), x1 = vload(hi);
  });
}

}  // namespace

int64_t rope_workspace(const RopeArgs*, int32_t) { return 0; }

Status rope(Context* ctx, const RopeArgs* a) {
  if (a->out.dtype != a->x.dtype || a->D % 2 || a->D > 1024) return Status::unsupported;
  if (!unit_stride(3, a->D, {a->out, a->x}) || !unit_stride(1, a->D / 2, {a->cos, a->sin})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(ctx, a->B * a->T, 16, [=](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        int64_t b = r / a->T, t = r % a->T;
        int64_t position =
            t + (a->start.data ? static_cast<const int64_t*>(a->start.data)[b * a->start.strides[0]] : 0);
        const float* c = static_cast<const float*>(a->cos.data) + position * a->cos.strides[0];
        const float* s = static_cast<const float*>(a->sin.data) + position * a->sin.strides[0];
        for (int64_t h = 0; h < a->H; ++h)
          turn(a, static_cast<T*>(a->out.data) + b * a->out.strides[0] + t * a->out.strides[1] + h * a->out.strides[2],
               static_cast<const T*>(a->x.data) + b * a->x.strides[0] + t * a->x.strides[1] + h * a->x.strides[2], c,
               s);
      }
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
