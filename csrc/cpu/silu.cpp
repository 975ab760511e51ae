// silu(x) = x * sigmoid(x). Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units", 2017.
#include "cpu/blocks.h"

namespace gristmill::GM_ISA {
int64_t silu_forward_workspace(const SiluForwardArgs*, int32_t) { return 0; }
int64_t silu_backward_workspace(const SiluBackwardArgs*, int32_t) { return 0; }

Status silu_forward(Context* ctx, const SiluForwardArgs* a) {
  if (a->out.dtype != a->x.dtype || !unit_stride(1, a->cols, {a->out, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    for_pieces(ctx, a->rows, a->cols, {a->out, a->x}, [=](int64_t i, int64_t j0, int64_t n) {
      const T* x = row_of<const T>(a->x, i) + j0;
      T* out = row_of<T>(a->out, i) + j0;
      bool add = a->out.accumulate;
      map(out, n, add, [](vf v) { return v * vsigmoid<T>(v); }, x);
    });
    return Status::ok;
  });
}

// d silu / dx = s + x s (1 - s) with s = sigmoid(x)
Status silu_backward(Context* ctx, const SiluBackwardArgs* a) {
  if (a->dx.dtype != a->x.dtype || a->dout.dtype != a->x.dtype) return Status::unsupported;
  if (!unit_stride(1, a->cols, {a->dx, a->dout, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    for_pieces(ctx, a->rows, a->cols, {a->dx, a->dout, a->x}, [=](int64_t i, int64_t j0, int64_t n) {
      const T *x = row_of<const T>(a->x, i) + j0, *dout = row_of<const T>(a->dout, i) + j0;
      T* dx = row_of<T>(a->dx, i) + j0;
      bool add = a->dx.accumulate;
      auto slope = [](vf d, vf v) {
        vf s = vsigmoid<T>(v);
        return d * vfma(v * s, vset(1.0f) - s, s);
      };
      map(dx, n, add, slope, dout, x);
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
