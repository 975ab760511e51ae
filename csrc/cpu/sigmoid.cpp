// sigmoid(x) = 1 / (1 + exp(-x)), its gradient from the result s: s (1 - s).
#include "cpu/activation.h"

namespace gristmill::GM_ISA {
int64_t sigmoid_forward_workspace(const SigmoidForwardArgs*, int32_t) { return 0; }
int64_t sigmoid_backward_workspace(const SigmoidBackwardArgs*, int32_t) { return 0; }

Status sigmoid_forward(Context* ctx, const SigmoidForwardArgs* a) {
  return activate(ctx, a, [](auto type, vf x) { return vsigmoid<decltype(type)>(x); });
}

Status sigmoid_backward(Context* ctx, const SigmoidBackwardArgs* a) {
  return differentiate(ctx, a, [](vf dout, vf out) { return dout * (out * (vset(1.0f) - out)); });
}

}  // namespace gristmill::GM_ISA
