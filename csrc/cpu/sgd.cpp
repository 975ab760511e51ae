// Stochastic gradient descent with momentum as in Sutskever et al., 2013, in PyTorch's form.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {

int64_t sgd_workspace(const SgdArgs*, int32_t) { return 0; }

Status sgd(Context* ctx, const SgdArgs* a) {
  if (a->param.dtype != DType::f32 || a->grad.dtype != DType::f32) return Status::unsupported;
  if (!unit_stride(0, a->n, {a->param, a->velocity, a->grad})) return Status::unsupported;
  if (a->param.accumulate || a->velocity.accumulate) return Status::unsupported;
  if (a->momentum != 0.0f && !a->velocity.data) return Status::unsupported;
  for_rows(ctx, (a->n + W - 1) / W, 1024, [=](int64_t first, int64_t last) {
    vf lr = vset(a->step[0]), scale = vset(a->step[1]), mu = vset(a->momentum), decay = vset(a->weight_decay);
    vf fresh = vset(a->step[2] != 0.0f ? 1.0f : 1.0f - a->dampening);
    float *param = static_cast<float*>(a->param.data), *velocity = static_cast<float*>(a->velocity.data);
    const float* grad = static_cast<const float*>(a->grad.data);
    for (int64_t i = first * W; i < last * W; i += W) {
      int64_t n = a->n - i;
      vf p = vload_n(param + i, n), g = vfma(decay, p, vload_n(grad + i, n) * scale);
      if (a->momentum != 0.0f) {
        vf v = a->step[2] != 0.0f ? g : vfma(mu, vload_n(velocity + i, n), fresh * g);
        vstore_n(velocity + i, v, n);
        g = a->nesterov ? vfma(mu, v, g) : v;
      }
      vstore_n(param + i, p - lr * g, n);
    }
  });
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
