// Idea: one pass, in which everything is done to a parameter before the next.
// Why: 28 bytes a parameter instead of 52: four arrays are read once, three written once.
// Look at: less memory, and yet hardly faster: three divisions and a root for each parameter are in the way.
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
  for (int64_t i = 0; i < a->n; ++i) {
    float x = g[i] * scale;
    m[i] = a->beta1 * m[i] + (1 - a->beta1) * x;
    v[i] = a->beta2 * v[i] + (1 - a->beta2) * x * x;
    p[i] = p[i] * (1 - rate * a->weight_decay) - rate * (m[i] / c1) / (std::sqrt(v[i] / c2) + a->eps);
  }
  return Status::ok;
}
