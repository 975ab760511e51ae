// Idea: 32 columns of b are copied side by side into one panel before the tiles read them.
// Why: each vector of the panel lies right behind the one before, whatever the strides of b, so the processor fetches
//   ahead; a row of zeros fills what is missing at the edge, so the inner loop has one form only.
// Look at: the copy costs one pass over b and is used by every 12 rows. a is still read 12 rows at a time.
// Takes: float32, last stride of a 1, any strides of b, K up to 16384.
#include "kernels.h"

#define GM_ISA ladder
#include "core/simd.h"

using namespace gristmill;
using namespace gristmill::ladder;

namespace {

constexpr int64_t MR = 12, NV = 2, NR = NV * W, kDeep = 16384;
alignas(64) thread_local float panel[kDeep * NR];  // 2 MB, for nothing is allocated during a call

void pack(const float* b, int64_t sk, int64_t sj, int64_t K, int64_t n) {
  for (int64_t k = 0; k < K; ++k)
    for (int64_t v = 0; v < NR; v += W) {
      float* to = panel + k * NR + v;
      if (sj == 1)
        vstore(to, v < n ? vload_n(b + k * sk + v, n - v) : vzero());
      else
        for (int64_t j = 0; j < W; ++j) to[j] = v + j < n ? b[k * sk + (v + j) * sj] : 0.0f;
    }
}

// R x NR of out, of which n columns exist; whole: all of them.
template <int R, bool whole>
void tile(float* out, int64_t ldc, const float* a, int64_t lda, int64_t K, int64_t n, bool add) {
  auto load = [n](const float* p, int64_t v) { return whole ? vload(p + v) : n > v ? vload_n(p + v, n - v) : vzero(); };
  auto store = [n](float* p, int64_t v, vf x) {
    return whole ? vstore(p + v, x) : n > v ? vstore_n(p + v, x, n - v) : void();
  };
  vf acc[R][NV];
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < NV; ++v) acc[i][v] = add ? load(out + i * ldc, v * W) : vzero();
  for (int64_t k = 0; k < K; ++k) {
    vf row[NV];
    for (int v = 0; v < NV; ++v) row[v] = vload(panel + k * NR + v * W);
    for (int i = 0; i < R; ++i)
      for (int v = 0; v < NV; ++v) acc[i][v] = vfma(vset(a[i * lda + k]), row[v], acc[i][v]);
  }
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < NV; ++v) store(out + i * ldc, v * W, acc[i][v]);
}

float* row(const View& v, int64_t z, int64_t i) {
  return static_cast<float*>(v.data) + z * v.strides[0] + i * v.strides[1];
}

}  // namespace

extern "C" Status matmul(Context*, const MatmulArgs* m) {
  constexpr DType f32 = DType::f32;
  if (m->out.dtype != f32 || m->a.dtype != f32 || m->b.dtype != f32 || m->compute != f32) return Status::unsupported;
  if ((m->a.strides[2] != 1 && m->K > 1) || m->K > kDeep) return Status::unsupported;
  for (int64_t z = 0; z < m->batch; ++z)
    for (int64_t j = 0; j < m->N; j += NR) {
      pack(row(m->b, z, 0) + j * m->b.strides[2], m->b.strides[1], m->b.strides[2], m->K, m->N - j);
      for (int64_t i = 0; i < m->M; i += i + MR <= m->M ? MR : 1) {  // the rows left over one by one
        bool whole = j + NR <= m->N, high = i + MR <= m->M;
        auto f = high ? (whole ? tile<MR, true> : tile<MR, false>) : (whole ? tile<1, true> : tile<1, false>);
        f(row(m->out, z, i) + j, m->out.strides[1], row(m->a, z, i), m->a.strides[1], m->K, m->N - j,
          m->out.accumulate);
      }
    }
  return Status::ok;
}
