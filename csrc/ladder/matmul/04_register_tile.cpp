// Idea: a tile of 2 x 32 of out stays in registers while k runs from 0 to K.
// Why: out is loaded and stored once instead of K times, and a vector of b serves two rows.
// Look at: the inner loop has 2 loads of b and 2 numbers of a for 4 fma. An fma takes 4 cycles until its sum can be
//   used, one could start every cycle: four sums in flight are just enough, if nothing else is in the way.
// Takes: float32, last stride of a and b 1.
#include "kernels.h"

#define GM_ISA ladder
#include "core/simd.h"

using namespace gristmill;
using namespace gristmill::ladder;

namespace {

constexpr int64_t MR = 2, NV = 2, NR = NV * W;

// R x NR of out, of which n columns exist; whole: all of them.
template <int R, bool whole>
void tile(float* out, int64_t ldc, const float* a, int64_t lda, const float* b, int64_t ldb, int64_t K, int64_t n,
          bool add) {
  auto load = [n](const float* p, int64_t v) { return whole ? vload(p + v) : n > v ? vload_n(p + v, n - v) : vzero(); };
  auto store = [n](float* p, int64_t v, vf x) {
    return whole ? vstore(p + v, x) : n > v ? vstore_n(p + v, x, n - v) : void();
  };
  vf acc[R][NV];
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < NV; ++v) acc[i][v] = add ? load(out + i * ldc, v * W) : vzero();
  for (int64_t k = 0; k < K; ++k) {
    vf row[NV];
    for (int v = 0; v < NV; ++v) row[v] = load(b + k * ldb, v * W);
    for (int i = 0; i < R; ++i)
      for (int v = 0; v < NV; ++v) acc[i][v] = vfma(vset(a[i * lda + k]), row[v], acc[i][v]);
  }
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < NV; ++v) store(out + i * ldc, v * W, acc[i][v]);
}

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
  int64_t ldc = m->out.strides[1], lda = m->a.strides[1], ldb = m->b.strides[1];
  for (int64_t z = 0; z < m->batch; ++z)
    for (int64_t j = 0; j < m->N; j += NR)
      for (int64_t i = 0; i < m->M; i += i + MR <= m->M ? MR : 1) {  // the rows left over one by one
        bool whole = j + NR <= m->N, high = i + MR <= m->M;
        auto f = high ? (whole ? tile<MR, true> : tile<MR, false>) : (whole ? tile<1, true> : tile<1, false>);
        f(row(m->out, z, i) + j, ldc, row(m->a, z, i), lda, row(m->b, z, 0) + j, ldb, m->K, m->N - j,
          m->out.accumulate);
      }
  return Status::ok;
}
