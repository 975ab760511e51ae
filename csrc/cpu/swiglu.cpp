// silu(gate) * up in one pass. Shazeer, "GLU variants improve transformer", 2020.
#include "cpu/blocks.h"

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
      map(out, n, add, [](vf g, vf u) { return g * vsigmoid<T>(g) * u; }, gate, up);
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
      each_block<T>(n, [=](int64_t j, auto w) {
        Vectors<T> d = bload<T>(dout + j, w), g = bload<T>(gate + j, w), u = bload<T>(up + j, w), dg, du;
        for (int k = 0; k < kVectors<T>; ++k) {
          vf s = vsigmoid<T>(g.v[k]), gs = g.v[k] * s;
          du.v[k] = d.v[k] * gs;
          dg.v[k] = d.v[k] * u.v[k] * vfma(gs, vset(1.0f) - s, s);
        }
        bput<T>(dup + j, du, w, add_to_up);
        bput<T>(dgate + j, dg, w, add_to_gate);
      });
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
