// Idea: a pass over the arrays for each line of the formula: m, v, the decay, the step.
// Why: it reads as the paper does. Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.
// Look at: count the bytes: g is read twice, m and v are written and read again, param is read and written twice. A
//   framework that calls a kernel for each operation does even more.
// Takes: float32, contiguous.
#include <cmath>
#include <initializer_list>

#include "kernels.h"

using namespace gristmill;

namespace {

bool takes(const AdamwArgs* a) {
  for (const View* v : {&a->param, &a->m, &a->v, &a->grad})
    if (v->dtype != DType::f32 || (v->strides[0] != 1 && a->n > 1)) return false;
  return true;
}

}  // namespace

extern "C" __attribute__((optimize("no-tree-vectorize"))) Status adamw(Context*, const AdamwArgs* a) {
  if (!takes(a)) return Status::unsupported;
  float *p = static_cast<float*>(a->param.data), *m = static_cast<float*>(a->m.data),
        *v = static_cast<float*>(a->v.data);
  const float* g = static_cast<float*>(a->grad.data);
  float rate = a->step[0], scale = a->step[1], c1 = a->step[2], c2 = a->step[3];
  for (int64_t i = 0; i < a->n; ++i) m[i] = a->beta1 * m[i] + (1 - a->beta1) * (g[i] * scale);
  for (int64_t i = 0; i < a->n; ++i) v[i] = a->beta2 * v[i] + (1 - a->beta2) * (g[i] * scale) * (g[i] * scale);
  for (int64_t i = 0; i < a->n; ++i) p[i] *= 1 - rate * a->weight_decay;
  for (int64_t i = 0; i < a->n; ++i) p[i] -= rate * (m[i] / c1) / (std::sqrt(v[i] / c2) + a->eps);
  return Status::ok;
}
