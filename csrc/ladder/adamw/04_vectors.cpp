// Idea: sixteen parameters at a time.
// Why: products, root and division of sixteen parameters are one instruction each, done while the next lines arrive.
// Look at: the share of the ceiling: one core can hardly read and write more. Non-temporal stores are no use here: the
//   lines that are written have just been read.
// Takes: float32, contiguous.
#include <initializer_list>

#include "kernels.h"

#define GM_ISA ladder
#include "core/simd.h"

using namespace gristmill;
using namespace gristmill::ladder;

namespace {

bool takes(const AdamwArgs* a) {
  for (const View* v : {&a->param, &a->m, &a->v, &a->grad})
    if (v->dtype != DType::f32 || (v->strides[0] != 1 && a->n > 1)) return false;
  return true;
}

}  // namespace

extern "C" Status adamw(Context*, const AdamwArgs* a) {
  if (!takes(a)) return Status::unsupported;
  float *p = static_cast<float*>(a->param.data), *m = static_cast<float*>(a->m.data),
        *v = static_cast<float*>(a->v.data);
  const float* g = static_cast<float*>(a->grad.data);
  vf scale = vset(a->step[1]), rate = vset(a->step[0] / a->step[2]), root = vset(1 / std::sqrt(a->step[3]));
  vf keep = vset(1 - a->step[0] * a->weight_decay), eps = vset(a->eps);
  vf b1 = vset(a->beta1), b2 = vset(a->beta2), c1 = vset(1 - a->beta1), c2 = vset(1 - a->beta2);
  for (int64_t i = 0; i < a->n; i += W) {
    int64_t n = a->n - i;
    vf x = vload_n(g + i, n) * scale;
    vf mean = vfma(b1, vload_n(m + i, n), c1 * x), square = vfma(b2, vload_n(v + i, n), c2 * x * x);
    vf moved = rate * mean / vfma(vsqrt(square), root, eps);
    vstore_n(m + i, mean, n);
    vstore_n(v + i, square, n);
    vstore_n(p + i, vload_n(p + i, n) * keep - moved, n);
  }
  return Status::ok;
}
