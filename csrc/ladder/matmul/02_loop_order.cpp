// Idea: the same loops in the order i, k, j: a row of out gathers a[i][k] times row k of b.
// Why: all three arrays are now read along their rows, so a cache line that is fetched is used whole.
// Look at: the additions of the inner loop no longer wait for each other; each still loads, adds and stores out[j].
// Takes: float32, last stride of a and b 1.
#include "kernels.h"

using namespace gristmill;

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

// One number at a time: what vectors add comes with the next step.
extern "C" __attribute__((optimize("no-tree-vectorize"))) Status matmul(Context*, const MatmulArgs* m) {
  if (!takes(m)) return Status::unsupported;
  for (int64_t z = 0; z < m->batch; ++z)
    for (int64_t i = 0; i < m->M; ++i) {
      float* out = row(m->out, z, i);
      const float* a = row(m->a, z, i);
      if (!m->out.accumulate)
        for (int64_t j = 0; j < m->N; ++j) out[j] = 0.0f;
      for (int64_t k = 0; k < m->K; ++k) {
        const float* b = row(m->b, z, k);
        for (int64_t j = 0; j < m->N; ++j) out[j] += a[k] * b[j];
      }
    }
  return Status::ok;
}
