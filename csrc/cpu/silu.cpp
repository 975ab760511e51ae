// silu(x) = x * sigmoid(x). Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units", 2017.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

template <class T>
void forward_row(T* out, const T* x, int64_t cols, bool add) {
  for (int64_t j = 0; j < cols; j += W) {
    vf v = vload_n(x + j, cols - j);
    put(out + j, v * vsigmoid(v), cols - j, add);
  }
}

// d silu / dx = s + x s (1 - s) with s = sigmoid(x)
template <class T>
void backward_row(T* dx, const T* dout, const T* x, int64_t cols, bool add) {
  for (int64_t j = 0; j < cols; j += W) {
    int64_t n = cols - j;
    vf v = vload_n(x + j, n), s = vsigmoid(v);
    put(dx + j, vload_n(dout + j, n) * vfma(v * s, vset(1.0f) - s, s), n, add);
  }
}

}  // namespace

int64_t silu_forward_workspace(const SiluForwardArgs*, int32_t) { return 0; }
int64_t silu_backward_workspace(const SiluBackwardArgs*, int32_t) { return 0; }

Status silu_forward(Context* ctx, const SiluForwardArgs* a) {
  if (a->out.dtype != a->x.dtype || !unit_stride(1, a->cols, {a->out, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(ctx, a->rows, 16, [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        forward_row(row_of<T>(a->out, i), row_of<const T>(a->x, i), a->cols, a->out.accumulate);
    });
    return Status::ok;
  });
}

Status silu_backward(Context* ctx, const SiluBackwardArgs* a) {
  if (a->dx.dtype != a->x.dtype || a->dout.dtype != a->x.dtype) return Status::unsupported;
  if (!unit_stride(1, a->cols, {a->dx, a->dout, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(ctx, a->rows, 16, [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        backward_row(row_of<T>(a->dx, i), row_of<const T>(a->dout, i), row_of<const T>(a->x, i), a->cols,
                     a->dx.accumulate);
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
