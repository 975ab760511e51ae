// relu(x) = max(x, 0). Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010.
#include "cpu/activation.h"

namespace gristmill::GM_ISA {
int64_t relu_forward_workspace(const ReluForwardArgs*, int32_t) { return 0; }
int64_t relu_backward_workspace(const ReluBackwardArgs*, int32_t) { return 0; }

Status relu_forward(Context* ctx, const ReluForwardArgs* a) {
  return activate(ctx, a, [](vf x) { return vmax(vzero(), x); });  // lets NaN through
}

// 0 where out <= 0, that is below the least number above 0: so the gradient passes where out is NaN, as in PyTorch.
constexpr float kLeast = 0x1p-149f;

Status relu_backward(Context* ctx, const ReluBackwardArgs* a) {
  return differentiate(ctx, a, [](vf dout, vf out) { return vselect_gt(vset(kLeast), out, vzero(), dout); });
}

}  // namespace gristmill::GM_ISA
