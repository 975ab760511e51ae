// Idea: the strips of a block are handed out to the threads as they come free; before that, the panels of b.
// Why: strips do not touch each other's part of out, so no one waits; a neighbour that slows one core down costs
// little,
//   because the other takes more strips.
// Look at: what is computed does not depend on who computes it: the bits are the same for any number of threads.
// Takes: float32, last stride of a and b 1.
#include "kernels.h"

#define GM_ISA ladder
#include "core/simd.h"
using namespace gristmill;
using namespace gristmill::ladder;

namespace {

constexpr int64_t MR = 12, NR = 2 * W, KC = 480, NC = 32 * NR;
alignas(64) thread_local float pb[KC * NC];

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

// f(0) to f(n - 1), on all threads.
void each(Context* ctx, int64_t n, auto f) {
  ctx->parallel_for(ctx, n, [](void* p, int64_t i) { (*static_cast<decltype(f)*>(p))(i); }, &f);
}

}  // namespace

extern "C" Status matmul(Context* ctx, const MatmulArgs* m) {
  constexpr DType f32 = DType::f32;
  if (m->out.dtype != f32 || m->a.dtype != f32 || m->b.dtype != f32 || m->compute != f32) return Status::unsupported;
  if ((m->a.strides[2] != 1 && m->K > 1) || (m->b.strides[2] != 1 && m->N > 1)) return Status::unsupported;
  int64_t strips = (m->M + MR - 1) / MR, ldc = m->out.strides[1];
  float* block = pb;  // of this thread, for all
  for (int64_t z = 0; z < m->batch; ++z)
    for (int64_t jc = 0; jc < m->N; jc += NC)
      for (int64_t kb = 0; kb < m->K || kb == 0; kb += KC) {
        int64_t nc = least(NC, m->N - jc), kc = least(KC, m->K - kb);
        each(ctx, (nc + W - 1) / W, [=](int64_t p) {
          float* to = block + p * W / NR * NR * kc + p * W % NR;
          for (int64_t k = 0; k < kc; ++k) vstore(to + k * NR, vload_n(at(m->b, z, kb + k, jc + p * W), nc - p * W));
        });
        each(ctx, strips, [=](int64_t s) {
          alignas(64) float pa[MR * KC];
          int64_t i = m->M * s / strips, rows = m->M * (s + 1) / strips - i;
          for (int64_t k = 0; k < kc; ++k)
            for (int64_t r = 0; r < rows; ++r) pa[k * rows + r] = at(m->a, z, i + r, kb)[k];
          for (int64_t j = 0; j < nc; j += NR)
            tile(rows, nc - j, at(m->out, z, i, jc + j), ldc, pa, block + j * kc, kc, kb > 0 || m->out.accumulate);
        });
      }
  return Status::ok;
}
