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
    for_pieces(ctx, a->rows, a->cols, {a->out, a->gate, a->up}, [=](int64_t i, int64_t j0, int64_t n) {
      const T *gate = row_of<const T>(a->gate, i) + j0, *up = row_of<const T>(a->up, i) + j0;
      T* out = row_of<T>(a->out, i) + j0;
      bool add = a->out.accumulate;
      each_vector(n, [=](int64_t j, auto w) {
        vf g = vload_n(gate + j, w);
        put(out + j, g * vsigmoid(g) * vload_n(up + j, w), w, add);
      });
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
    auto views = {a->dgate, a->dup, a->dout, a->gate, a->up};
    for_pieces(ctx, a->rows, a->cols, views, [=](int64_t i, int64_t j0, int64_t n) {
      const T *gate = row_of<const T>(a->gate, i) + j0, *up = row_of<const T>(a->up, i) + j0;
      const T* dout = row_of<const T>(a->dout, i) + j0;
      T *dgate = row_of<T>(a->dgate, i) + j0, *dup = row_of<T>(a->dup, i) + j0;
      bool add_to_up = a->dup.accumulate, add_to_gate = a->dgate.accumulate;
      each_vector(n, [=](int64_t j, auto w) {
        vf g = vload_n(gate + j, w), u = vload_n(up + j, w), d = vload_n(dout + j, w), s = vsigmoid(g), gs = g * s;
        put(dup + j, d * gs, w, add_to_up);
        put(dgate + j, d * u * vfma(gs, vset(1.0f) - s, s), w, add_to_gate);
      });
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
