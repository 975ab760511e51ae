// What the activations share: a function of each element, and its gradient from what the forward pass kept.
#pragma once
#include "cpu/blocks.h"

namespace gristmill::GM_ISA {
namespace {

// out = f(type, x) as it is stored in that type; out and x (rows, cols).
template <class Args, class F>
inline Status activate(Context* ctx, const Args* a, F f) {
  if (a->out.dtype != a->x.dtype || !unit_stride(1, a->cols, {a->out, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    for_pieces(ctx, a->rows, a->cols, {a->out, a->x}, [=](int64_t i, int64_t j0, int64_t n) {
      const T* x = row_of<const T>(a->x, i) + j0;
      T* out = row_of<T>(a->out, i) + j0;
      bool add = a->out.accumulate;
      map(out, n, add, [=](vf v) { return f(T{}, v); }, x);
    });
    return Status::ok;
  });
}

// dx = g(dout, out); all of them (rows, cols).
template <class Args, class G>
inline Status differentiate(Context* ctx, const Args* a, G g) {
  if (a->dx.dtype != a->out.dtype || a->dout.dtype != a->out.dtype) return Status::unsupported;
  if (!unit_stride(1, a->cols, {a->dx, a->dout, a->out})) return Status::unsupported;
  return by_type(a->out.dtype, [&](auto type) {
    using T = decltype(type);
    for_pieces(ctx, a->rows, a->cols, {a->dx, a->dout, a->out}, [=](int64_t i, int64_t j0, int64_t n) {
      const T *out = row_of<const T>(a->out, i) + j0, *dout = row_of<const T>(a->dout, i) + j0;
      T* dx = row_of<T>(a->dx, i) + j0;
      bool add = a->dx.accumulate;
      each_vector(n, [=](int64_t j, auto w) { put(dx + j, g(vload_n(dout + j, w), vload_n(out + j, w)), w, add); });
    });
    return Status::ok;
  });
}

}  // namespace
}  // namespace gristmill::GM_ISA
