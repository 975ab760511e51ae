// Rotary positions: the pair (x_i, x_{i + D/2}) turns by position * theta^(-2i/D). Su et al., "RoFormer", 2021.
#include "cpu/blocks.h"

namespace gristmill::GM_ISA {
namespace {

// All heads of a position: they share its angles.
template <class T>
void turn(const RopeArgs* a, T* out, const T* x, const float* c, const float* s) {
  int64_t half = a->D / 2, heads = a->H, so = a->out.strides[2], sx = a->x.strides[2];
  bool add = a->out.accumulate;
  vf sign = vset(a->inverse ? -1.0f : 1.0f);
  auto cos = [=](int64_t i, auto n) { return bload<T>(c + i, n); };
  auto sin = [=](int64_t i, auto n) { return each_of<T>([=](vf v) { return v * sign; }, bload<T>(s + i, n)); };
  auto each = [=](auto pair) {
    auto one = [=](int64_t h, int64_t i, auto n, const Vectors<T>& cv, const Vectors<T>& sv) {
      Vectors<T> x0, x1;
      T* o = out + h * so + i;
      pair(x + h * sx, i, n, x0, x1);
      bput<T>(o, each_of<T>([](vf a, vf b, vf c, vf s) { return a * c - b * s; }, x0, x1, cv, sv), n, add);
      bput<T>(o + half, each_of<T>([](vf a, vf b, vf c, vf s) { return b * c + a * s; }, x0, x1, cv, sv), n, add);
    };
    if (half <= kBlock<T>)  // the angles stay in registers
      return each_block<T>(half, [=](int64_t i, auto n) {
        Vectors<T> cv = cos(i, n), sv = sin(i, n);
        for (int64_t h = 0; h < heads; ++h) one(h, i, n, cv, sv);
      });
    for (int64_t h = 0; h < heads; ++h)
      each_block<T>(half, [=](int64_t i, auto n) { one(h, i, n, cos(i, n), sin(i, n)); });
  };
  if (!a->interleaved)
    return each([=](const T* x, int64_t i, auto n, Vectors<T>& x0, Vectors<T>& x1) {
      x0 = bload<T>(x + i, n), x1 = bload<T>(x + half + i, n);
    });
  each([=](const T* x, int64_t i, int64_t n, Vectors<T>& x0, Vectors<T>& x1) {
    T lo[kBlock<T>] = {}, hi[kBlock<T>] = {};
    for (int64_t l = 0; l < n; ++l) lo[l] = x[2 * (i + l)], hi[l] = x[2 * (i + l) + 1];
    x0 = bload<T>(lo, kBlock<T>), x1 = bload<T>(hi, kBlock<T>);
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
        turn(a, static_cast<T*>(a->out.data) + b * a->out.strides[0] + t * a->out.strides[1],
             static_cast<const T*>(a->x.data) + b * a->x.strides[0] + t * a->x.strides[1], c, s);
      }
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
