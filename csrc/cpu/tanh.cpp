// tanh(x), its gradient from the result: 1 - tanh(x)^2.
#include "cpu/activation.h"

namespace gristmill::GM_ISA {
int64_t tanh_forward_workspace(const TanhForwardArgs*, int32_t) { return 0; }
int64_t tanh_backward_workspace(const TanhBackwardArgs*, int32_t) { return 0; }

Status tanh_forward(Context* ctx, const TanhForwardArgs* a) {
  return activate(ctx, a, [](auto type, vf x) { return vtanh<decltype(type)>(x); });
}

Status tanh_backward(Context* ctx, const TanhBackwardArgs* a) {
  return differentiate(ctx, a, [](vf dout, vf out) { return dout * vfma(-out, out, vset(1.0f)); });
}

}  // namespace gristmill::GM_ISA
