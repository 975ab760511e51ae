// Idea: bfloat16 operands, two steps of k in one instruction: vdpbf16ps adds two products to each of sixteen sums.
// Why: an fma is one product a lane, this is two; a bfloat16 is half a float32, so the packed panels halve as well.
// Look at: a pair of neighbours in k takes 32 bits, so the tile is the one from before with pairs for numbers.
// Takes: float32 arrays with compute bfloat16, last stride of a and b 1; a processor with AVX-512 bf16.
#include "kernels.h"
#define GM_ISA ladder
#include "core/simd.h"
using namespace gristmill;
using namespace gristmill::ladder;
#if !defined(__AVX512BF16__)
extern "C" Status matmul(Context*, const MatmulArgs*) { return Status::unsupported; }
#else
namespace {
constexpr int64_t MR = 12, NR = 2 * W, KC = 960, NC = 32 * NR;  // 480 pairs are as many bytes as 480 float32
alignas(64) thread_local uint32_t pa[MR * KC / 2], pb[KC / 2 * NC];
template <int R = MR>
void tile(int64_t rows, int64_t cols, float* out, int64_t ldc, const uint32_t* b, int64_t pairs, bool add) {
  if (R > 1 && rows < R) return tile<(R > 1 ? R - 1 : 1)>(rows, cols, out, ldc, b, pairs, add);
  vf acc[R][2];
  for (int i = 0; i < R; ++i) {
    acc[i][0] = add ? vload_n(out + i * ldc, cols) : vzero();
    acc[i][1] = add && cols > W ? vload_n(out + i * ldc + W, cols - W) : vzero();
  }
  for (int64_t k = 0; k < pairs; ++k, b += NR) {
    __m512bh x = (__m512bh)_mm512_loadu_si512(b), y = (__m512bh)_mm512_loadu_si512(b + W);
    for (int i = 0; i < R; ++i) {
      __m512bh a = (__m512bh)_mm512_set1_epi32(static_cast<int>(pa[k * R + i]));
      acc[i][0].r[0] = _mm512_dpbf16_ps(acc[i][0].r[0], a, x);
      acc[i][1].r[0] = _mm512_dpbf16_ps(acc[i][1].r[0], a, y);
    }
  }
  for (int i = 0; i < R; ++i) {
    vstore_n(out + i * ldc, acc[i][0], cols);
    if (cols > W) vstore_n(out + i * ldc + W, acc[i][1], cols - W);
  }
}

float* at(const View& v, int64_t z, int64_t i, int64_t j) {
  return static_cast<float*>(v.data) + z * v.strides[0] + i * v.strides[1] + j;
}
void each(Context* ctx, int64_t n, auto f) {
  ctx->parallel_for(ctx, n, [](void* p, int64_t i) { (*static_cast<decltype(f)*>(p))(i); }, &f);
}
}  // namespace

extern "C" Status matmul(Context* ctx, const MatmulArgs* m) {
  constexpr DType f32 = DType::f32;
  if (m->out.dtype != f32 || m->a.dtype != f32 || m->b.dtype != f32 || m->compute == f32) return Status::unsupported;
  if ((m->a.strides[2] != 1 && m->K > 1) || (m->b.strides[2] != 1 && m->N > 1)) return Status::unsupported;
  int64_t strips = (m->M + MR - 1) / MR, ldc = m->out.strides[1];
  uint32_t* block = pb;
  for (int64_t z = 0; z < m->batch; ++z)
    for (int64_t jc = 0; jc < m->N; jc += NC)
      for (int64_t kb = 0; kb < m->K || kb == 0; kb += KC) {
        int64_t nc = m->N - jc < NC ? m->N - jc : NC, kc = m->K - kb < KC ? m->K - kb : KC, pairs = (kc + 1) / 2;
        each(ctx, (nc + W - 1) / W, [=](int64_t p) {  // row k of b below row k + 1
          uint16_t half[2][W];
          for (int64_t k = 0, j = p * W; k < kc; k += 2) {
            for (int64_t h = 0; h < 2; ++h)
              vstore(half[h], k + h < kc ? vload_n(at(m->b, z, kb + k + h, jc + j), nc - j) : vzero());
            uint32_t* to = block + j / NR * NR * pairs + k / 2 * NR + j % NR;
            for (int64_t x = 0; x < W; ++x) to[x] = half[0][x] | uint32_t{half[1][x]} << 16;
          }
        });
        each(ctx, strips, [=](int64_t s) {
          int64_t i = m->M * s / strips, rows = m->M * (s + 1) / strips - i;
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t k = 0; k < kc; k += W) {
              uint16_t x[W];
              vstore(x, vload_n(at(m->a, z, i + r, kb + k), kc - k));
              for (int64_t p = 0; p < W && k + p < kc; p += 2) std::memcpy(pa + (k + p) / 2 * rows + r, x + p, 4);
            }
          for (int64_t j = 0; j < nc; j += NR)
            tile(rows, nc - j, at(m->out, z, i, jc + j), ldc, block + j * pairs, pairs, kb > 0 || m->out.accumulate);
        });
      }
  return Status::ok;
}
#endif
