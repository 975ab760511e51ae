// Idea: sixteen columns at a time: one load of b, one fused multiply-add, for sixteen numbers.
// Why: a vector unit does sixteen products and sums in the instruction that did one of either.
// Look at: an fma still needs two loads and a store. The unit could start one fma per cycle; the loads and stores
//   around it take longer.
// Takes: float32, last stride of a and b 1.
#include "kernels.h"

#define GM_ISA ladder
#include "core/simd.h"

using namespace gristmill;
using namespace gristmill::ladder;

namespace {

bool takes(const MatmulArgs* m) {
  constexpr DType f32 = DType::f32;
  return m->out.dtype == f32 && m->a.dtype == f32 && m->b.dtype == f32 && m->compute == f32 &&
         (m->a.strides[2] == 1 || m->K < 2) && (m->b.strides[2] == 1 || m->N < 2);
}

float* row(const View& v, int64_t z, int64_t i) {
  return static_cast<float*>(v.data) + z * v.strides[0] + i * v.strides[1];
}

}  // namespace

extern "C" Status matmul(Context*, const MatmulArgs* m) {
  if (!takes(m)) return Status::unsupported;
  for (int64_t z = 0; z < m->batch; ++z)
    for (int64_t i = 0; i < m->M; ++i) {
      float* out = row(m->out, z, i);
      const float* a = row(m->a, z, i);
      if (!m->out.accumulate)
        for (int64_t j = 0; j < m->N; ++j) out[j] = 0.0f;
      for (int64_t k = 0; k < m->K; ++k) {
        const float* b = row(m->b, z, k);
        vf x = vset(a[k]);
        for (int64_t j = 0; j < m->N; j += W) {
          int64_t n = m->N - j;  // the last vector may be a part
          vstore_n(out + j, vfma(x, vload_n(b + j, n), vload_n(out + j, n)), n);
        }
      }
    }
  return Status::ok;
}
