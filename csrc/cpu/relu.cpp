// relu(x) = max(x, 0). Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010.
#include "cpu/activation.h"

namespace gristmill::GM_ISA {
int64_t relu_forward_workspace(const ReluForwardArgs*, int32_t) { return 0; }
int64_t relu_backward_workspace(const ReluBackwardArgs*, int32_t) { return 0; }

// Not by blocks, whose stores flush denormals: what is above 0 comes back as it is.
Status relu_forward(Context* ctx, const ReluForwardArgs* a) {
  if (a->out.dtype != a->x.dtype || !unit_stride(1, a->cols, {a->out, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    for_pieces(ctx, a->rows, a->cols, {a->out, a->x}, [=](int64_t i, int64_t j0, int64_t n) {
      const T* x = row_of<const T>(a->x, i) + j0;
      T* out = row_of<T>(a->out, i) + j0;
      bool add = a->out.accumulate;
      each_vector(n, [=](int64_t j, auto w) {  // a NaN on the right stays
        put(out + j, vmax(vzero(), vload_n(x + j, w)), w, add);
      });
    });
    return Status::ok;
  });
}

// Where out is NaN, neither above 0 nor below infinity, the gradient passes, as in PyTorch.
Status relu_backward(Context* ctx, const ReluBackwardArgs* a) {
  return differentiate(ctx, a, [](vf dout, vf out) {
    return vselect_gt(out, vzero(), dout, vselect_gt(vset(INFINITY), out, vzero(), dout));
  });
}

}  // namespace gristmill::GM_ISA
