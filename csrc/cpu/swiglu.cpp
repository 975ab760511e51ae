// silu(gate) * up in one pass. Shazeer, "GLU variants improve transformer", 2020.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {

int64_t swiglu_forward_workspace(const SwigluForwardArgs*, int32_t) { return 0; }
int64_t swiglu_backward_workspace(const SwigluBackwardArgs*, int32_t) { return 0; }

Status swiglu_forward(Context* ctx, const SwigluForwardArgs* a) {
  if (a->out.dtype != a->gate.dtype || a->up.dtype != a->gate.dtype) return Status::unsupported;
  if (!unit_stride(1, a->cols, {a->out, a->gate, a->up})) return Status::unsupported;
  return by_type(a->gate.dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(ctx, a->rows, 16, [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        for (int64_t j = 0; j < a->cols; j += W) {
          int64_t n = a->cols - j;
          vf g = vload_n(row_of<const T>(a->gate, i) + j, n), u = vload_n(row_of<const T>(a->up, i) + j, n);
          put(row_of<T>(a->out, i) + j, g * vsigmoid(g) * u, n, a->out.accumulate);
        }
    });
    return Status::ok;
  });
}

Status swiglu_backward(Context* ctx, const SwigluBackwardArgs* a) {
  DType t = a->gate.dtype;
  if (a->dgate.dtype != t || a->dup.dtype != t || a->dout.dtype != t || a->up.dtype != t) return Status::unsupported;
  if (!unit_stride(1, a->cols, {a->dgate, a->dup, a->dout, a->gate, a->up})) return Status::unsupported;
  return by_type(t, [&](auto type) {
    using T = decltype(type);
    for_rows(ctx, a->rows, 16, [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        for (int64_t j = 0; j < a->cols; j += W) {
          int64_t n = a->cols - j;
          vf g = vload_n(row_of<const T>(a->gate, i) + j, n), u = vload_n(row_of<const T>(a->up, i) + j, n);
          vf d = vload_n(row_of<const T>(a->dout, i) + j, n), s = vsigmoid(g);
          put(row_of<T>(a->dup, i) + j, d * g * s, n, a->dup.accumulate);
          put(row_of<T>(a->dgate, i) + j, d * u * vfma(g * s, vset(1.0f) - s, s), n, a->dgate.accumulate);
        }
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
