// Idea: the definition in three loops: out[i][j] = sum over k of a[i][k] b[k][j].
// Why: it is right, and everything below is compared with it.
// Look at: for growing k, b[k][j] walks down a column: every 4 bytes come from another cache line, and every
//   addition waits for the one before.
// Takes: float32, any strides of a and b.
#include "kernels.h"

using namespace gristmill;

extern "C" Status matmul(Context*, const MatmulArgs* m) {
  constexpr DType f32 = DType::f32;
  if (m->out.dtype != f32 || m->a.dtype != f32 || m->b.dtype != f32 || m->compute != f32) return Status::unsupported;
  auto at = [](const View& v, int64_t z, int64_t i, int64_t j) {
    return static_cast<float*>(v.data) + z * v.strides[0] + i * v.strides[1] + j * v.strides[2];
  };
  for (int64_t z = 0; z < m->batch; ++z)
    for (int64_t i = 0; i < m->M; ++i)
      for (int64_t j = 0; j < m->N; ++j) {
        float* out = at(m->out, z, i, j);
        float sum = m->out.accumulate ? *out : 0.0f;
        for (int64_t k = 0; k < m->K; ++k) sum += *at(m->a, z, i, k) * *at(m->b, z, k, j);
        *out = sum;
      }
  return Status::ok;
}
