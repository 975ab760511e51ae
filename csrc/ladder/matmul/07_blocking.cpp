// Idea: the product is done in blocks that fit a cache, KC deep, MR rows of a by NC columns of b; both are packed.
// Why: a panel of a (12 x 480, 23 KB) stays in the first cache while all panels of b pass by, and these come from the
//   second and third cache, not from memory, however large the matrices are.
// Look at: three loops around the tile, and an out that is loaded and stored K / KC times instead of once. Goto and van
//   de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
// Takes: float32, last stride of a and b 1.
#include "kernels.h"

#define GM_ISA ladder
#include "core/simd.h"

using namespace gristmill;
using namespace gristmill::ladder;

namespace {

constexpr int64_t MR = 12, NV = 2, NR = NV * W, KC = 480, NC = 32 * NR;
alignas(64) thread_local float pa[MR * KC], pb[KC * NC];  // 23 KB and 2 MB, for nothing is allocated during a call

// MR x NR of out, of which rows x cols exist: one panel of a times one of b.
void tile(int64_t rows, int64_t cols, float* out, int64_t ldc, const float* a, const float* b, int64_t kc, bool add) {
  vf acc[MR][NV];
  for (int i = 0; i < MR; ++i)
    for (int v = 0; v < NV; ++v)
      acc[i][v] = add && i < rows && v * W < cols ? vload_n(out + i * ldc + v * W, cols - v * W) : vzero();
  for (int64_t k = 0; k < kc; ++k, a += MR, b += NR) {
    vf row[NV];
    for (int v = 0; v < NV; ++v) row[v] = vload(b + v * W);
    for (int i = 0; i < MR; ++i)
      for (int v = 0; v < NV; ++v) acc[i][v] = vfma(vset(a[i]), row[v], acc[i][v]);
  }
  for (int i = 0; i < MR; ++i)
    for (int v = 0; v < NV; ++v)
      if (i < rows && v * W < cols) vstore_n(out + i * ldc + v * W, acc[i][v], cols - v * W);
}

float* at(const View& v, int64_t z, int64_t i, int64_t j) {
  return static_cast<float*>(v.data) + z * v.strides[0] + i * v.strides[1] + j;
}
int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }

}  // namespace

extern "C" Status matmul(Context*, const MatmulArgs* m) {
  constexpr DType f32 = DType::f32;
  if (m->out.dtype != f32 || m->a.dtype != f32 || m->b.dtype != f32 || m->compute != f32) return Status::unsupported;
  if ((m->a.strides[2] != 1 && m->K > 1) || (m->b.strides[2] != 1 && m->N > 1)) return Status::unsupported;
  for (int64_t z = 0; z < m->batch; ++z)
    for (int64_t jc = 0; jc < m->N; jc += NC)
      for (int64_t kb = 0; kb < m->K || kb == 0; kb += KC) {
        int64_t nc = least(NC, m->N - jc), kc = least(KC, m->K - kb);
        for (int64_t j = 0; j < nc; j += W)  // panels of NR columns, k by k; beyond the last column zeros
          for (int64_t k = 0; k < kc; ++k)
            vstore(pb + j / NR * NR * kc + k * NR + j % NR, vload_n(at(m->b, z, kb + k, jc + j), nc - j));
        for (int64_t i = 0; i < m->M; i += MR) {
          for (int64_t k = 0; k < kc; ++k)
            for (int64_t r = 0; r < MR; ++r) pa[k * MR + r] = i + r < m->M ? at(m->a, z, i + r, kb)[k] : 0.0f;
          for (int64_t j = 0; j < nc; j += NR)
            tile(m->M - i, nc - j, at(m->out, z, i, jc + j), m->out.strides[1], pa, pb + j * kc, kc,
                 kb > 0 || m->out.accumulate);
        }
      }
  return Status::ok;
}
