// Idea: ask for memory before it is needed: the next rows of out, and the lines of b that come eight steps later.
// Why: a load from the third cache takes some 50 cycles, which no fma should wait for.
// Look at: two lines more than the step before. The hardware fetches ahead too, so they are worth little while a core
//   has its caches to itself, and more with larger matrices or a second thread.
// Takes: float32, last stride of a and b 1.
#include "kernels.h"

#define GM_ISA ladder
#include "core/simd.h"

using namespace gristmill;
using namespace gristmill::ladder;

namespace {

constexpr int64_t MR = 12, NR = 2 * W, KC = 480, NC = 32 * NR;
alignas(64) thread_local float pa[MR * KC], pb[KC * NC];

// R rows and V vectors of out, of which `cols` columns exist: a strip of a times a panel of b.
template <int R = MR, int V = 2>
void tile(int64_t rows, int64_t cols, float* out, int64_t ldc, const float* a, const float* b, int64_t kc, bool add) {
  if constexpr (R > 1)
    if (rows < R) return tile<R - 1, V>(rows, cols, out, ldc, a, b, kc, add);
  if constexpr (V > 1)
    if (cols <= W) return tile<R, 1>(rows, cols, out, ldc, a, b, kc, add);
  for (int i = 0; i < R; ++i) __builtin_prefetch(out + i * ldc + NR, 1);
  vf acc[R][V];
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < V; ++v) acc[i][v] = add ? vload_n(out + i * ldc + v * W, cols - v * W) : vzero();
  for (int64_t k = 0; k < kc; ++k, a += R, b += NR) {
    for (int v = 0; v < V; ++v) __builtin_prefetch(b + 8 * NR + v * W);
    vf row[V];
    for (int v = 0; v < V; ++v) row[v] = vload(b + v * W);
    for (int i = 0; i < R; ++i)
      for (int v = 0; v < V; ++v) acc[i][v] = vfma(vset(a[i]), row[v], acc[i][v]);
  }
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < V; ++v) vstore_n(out + i * ldc + v * W, acc[i][v], cols - v * W);
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
  int64_t strips = (m->M + MR - 1) / MR;
  for (int64_t z = 0; z < m->batch; ++z)
    for (int64_t jc = 0; jc < m->N; jc += NC)
      for (int64_t kb = 0; kb < m->K || kb == 0; kb += KC) {
        int64_t nc = least(NC, m->N - jc), kc = least(KC, m->K - kb);
        for (int64_t j = 0; j < nc; j += W)  // panels of NR columns, k by k; beyond the last column zeros
          for (int64_t k = 0; k < kc; ++k)
            vstore(pb + j / NR * NR * kc + k * NR + j % NR, vload_n(at(m->b, z, kb + k, jc + j), nc - j));
        for (int64_t s = 0; s < strips; ++s) {
          int64_t i = m->M * s / strips, rows = m->M * (s + 1) / strips - i;
          for (int64_t k = 0; k < kc; ++k)
            for (int64_t r = 0; r < rows; ++r) pa[k * rows + r] = at(m->a, z, i + r, kb)[k];
          for (int64_t j = 0; j < nc; j += NR)
            tile(rows, nc - j, at(m->out, z, i, jc + j), m->out.strides[1], pa, pb + j * kc, kc,
                 kb > 0 || m->out.accumulate);
        }
      }
  return Status::ok;
}
