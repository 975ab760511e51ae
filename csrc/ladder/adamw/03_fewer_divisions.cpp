// Idea: what is the same for all parameters is computed once: rate / c1, 1 / sqrt(c2), 1 - rate decay.
// Why: a division takes the unit some 5 cycles, a product half of one; one division of three is left.
// Look at: the compiler may not do this itself: the last bits of the result change.
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
  float scale = a->step[1], rate = a->step[0] / a->step[2], root = 1 / std::sqrt(a->step[3]);
  float keep = 1 - a->step[0] * a->weight_decay, b1 = 1 - a->beta1, b2 = 1 - a->beta2;
  for (int64_t i = 0; i < a->n; ++i) {
    float x = g[i] * scale;
    m[i] = a->beta1 * m[i] + b1 * x;
    v[i] = a->beta2 * v[i] + b2 * x * x;
    p[i] = p[i] * keep - rate * m[i] / (std::sqrt(v[i]) * root + a->eps);
  }
  return Status::ok;
}
