// Adam with decoupled weight decay. Loshchilov and Hutter, ICLR 2019, algorithm 2.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {

int64_t adamw_workspace(const AdamwArgs*, int32_t) { return 0; }

Status adamw(Context* ctx, const AdamwArgs* a) {
  for (const View& v : {a->param, a->m, a->v, a->grad})
    if (v.dtype != DType::f32) return Status::unsupported;
  if (!unit_stride(0, a->n, {a->param, a->m, a->v, a->grad})) return Status::unsupported;
  if (a->param.accumulate || a->m.accumulate || a->v.accumulate) return Status::unsupported;
  for_rows(ctx, (a->n + W - 1) / W, 1024, [=](int64_t first, int64_t last) {
    float lr = a->step[0];
    vf scale = vset(a->step[1]), b1 = vset(a->beta1), b2 = vset(a->beta2);
    vf keep = vset(1.0f - lr * a->weight_decay), rate = vset(lr / a->step[2]);
    vf root = vset(1.0f / __builtin_sqrtf(a->step[3])), eps = vset(a->eps);
    vf c1 = vset(1.0f - a->beta1), c2 = vset(1.0f - a->beta2);
    auto at = [](const View& v, int64_t i) { return static_cast<float*>(v.data) + i; };
    for (int64_t i = first * W; i < last * W; i += W) {
      int64_t n = a->n - i;
      vf g = vload_n(at(a->grad, i), n) * scale;
      vf m = vfma(b1, vload_n(at(a->m, i), n), c1 * g), v = vfma(b2, vload_n(at(a->v, i), n), c2 * g * g);
      vf p = vload_n(at(a->param, i), n) * keep;
      vstore_n(at(a->m, i), m, n);
      vstore_n(at(a->v, i), v, n);
      vstore_n(at(a->param, i), p - rate * m / vfma(vsqrt(v), root, eps), n);
    }
  });
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
