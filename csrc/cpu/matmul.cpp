// out (M, N) = a (M, K) b (K, N). Both operands are packed into panels, then a register tile walks K. Every element is
// one fma chain over k that starts from C, so tile and block sizes, M, and threads do not show in the bits.
// Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
#include "core/simd.h"
#include "cpu/table.h"

namespace gristmill::GM_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int MR = 12, NV = 2;  // 24 of 32 registers accumulate
#else
constexpr int MR = 6, NV = 1;
#endif
constexpr int NR = NV * W;
constexpr int64_t KC = 384, MC = 8 * MR, NC = 16 * NR;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

bool pairs(const MatmulArgs* a) {
#if defined(__AVX512BF16__)
  return a->compute == DType::bf16;
#else
  (void)a;
  return false;
#endif
}

// bfloat16 outputs are rounded once, at the end of K, so their K is not cut.
int64_t k_block(const MatmulArgs* a) { return a->out.dtype == DType::f32 ? smaller(KC, a->K) : a->K; }

float widen(float x) { return x; }
float widen(uint16_t x) { return bf16_to_f32(x); }

// One panel: P rows of the operand (strides: row, k), dst[k * P + r], missing rows are zero.
template <class T>
void pack_panel(float* dst, const T* src, int64_t sr, int64_t sk, int64_t n, int64_t P, int64_t kc, bool round) {
  for (int64_t r = n; r < P; ++r)
    for (int64_t k = 0; k < kc; ++k) dst[k * P + r] = 0.0f;
  if (sr == 1 && !round) {
    for (int64_t k = 0; k < kc; ++k)
      for (int64_t r = 0; r < n; ++r) dst[k * P + r] = widen(src[k * sk + r]);
    return;
  }
  for (int64_t k0 = 0; k0 < kc; k0 += 16)
    for (int64_t r = 0; r < n; ++r)
      for (int64_t k = k0; k < smaller(k0 + 16, kc); ++k) {
        float x = widen(src[r * sr + k * sk]);
        dst[k * P + r] = round ? bf16_to_f32(f32_to_bf16(x)) : x;
      }
}

uint16_t narrow(float x) { return f32_to_bf16(x); }
uint16_t narrow(uint16_t x) { return x; }

// The same in bfloat16, two k side by side as vdpbf16ps takes them; an odd last k is paired with zero.
template <class T>
void pack_pairs(uint16_t* dst, const T* src, int64_t sr, int64_t sk, int64_t n, int64_t P, int64_t kc) {
  int64_t even = (kc + 1) / 2 * 2;
  for (int64_t k0 = 0; k0 < even; k0 += 16)
    for (int64_t r = 0; r < P; ++r)
      for (int64_t k = k0; k < smaller(k0 + 16, even); ++k)
        dst[(k / 2 * P + r) * 2 + k % 2] = r < n && k < kc ? narrow(src[r * sr + k * sk]) : uint16_t{0};
}

struct Job {
  const MatmulArgs* args;
  int64_t batch, k0, kc;
  float *a, *b;  // panels of this k block; pairs of bfloat16 fit into half of it
};

template <class T>
void pack_one(const Job* j, float* dst, const View& v, int64_t row, int64_t n, int64_t P, int64_t sr, int64_t sk) {
  const T* src = static_cast<const T*>(v.data) + j->batch * v.strides[0] + row * sr + j->k0 * sk;
  if (pairs(j->args)) return pack_pairs(reinterpret_cast<uint16_t*>(dst), src, sr, sk, n, P, j->kc);
  pack_panel(dst, src, sr, sk, n, P, j->kc, j->args->compute == DType::bf16 && v.dtype == DType::f32);
}

void pack(void* p, int64_t i) {
  auto* j = static_cast<const Job*>(p);
  const MatmulArgs* m = j->args;
  int64_t panels_a = ceil_div(m->M, MR);
  bool is_a = i < panels_a;
  const View& v = is_a ? m->a : m->b;
  int64_t P = is_a ? MR : NR, row = (is_a ? i : i - panels_a) * P, total = is_a ? m->M : m->N;
  int64_t sr = is_a ? v.strides[1] : v.strides[2], sk = is_a ? v.strides[2] : v.strides[1];
  float* dst = (is_a ? j->a : j->b) + row * ((j->kc + 1) / 2 * 2);
  int64_t n = smaller(P, total - row);
  if (v.dtype == DType::f32)
    pack_one<float>(j, dst, v, row, n, P, sr, sk);
  else
    pack_one<uint16_t>(j, dst, v, row, n, P, sr, sk);
}

// c[MR][NR] += a panel times b panel.
void multiply(float* c, int64_t ldc, const float* a, const float* b, int64_t kc) {
  vf acc[MR][NV];
  for (int i = 0; i < MR; ++i)
    for (int v = 0; v < NV; ++v) acc[i][v] = vload(c + i * ldc + v * W);
  for (int64_t k = 0; k < kc; ++k) {
    vf row[NV];
    for (int v = 0; v < NV; ++v) row[v] = vload(b + k * NR + v * W);
    for (int i = 0; i < MR; ++i)
      for (int v = 0; v < NV; ++v) acc[i][v] = vfma(vset(a[k * MR + i]), row[v], acc[i][v]);
  }
  for (int i = 0; i < MR; ++i)
    for (int v = 0; v < NV; ++v) vstore(c + i * ldc + v * W, acc[i][v]);
}

#if defined(__AVX512BF16__)
void multiply_pairs(float* c, int64_t ldc, const float* a, const float* b, int64_t kc) {
  __m512 acc[MR][NV];
  for (int i = 0; i < MR; ++i)
    for (int v = 0; v < NV; ++v) acc[i][v] = _mm512_loadu_ps(c + i * ldc + v * W);
  for (int64_t k = 0; k < (kc + 1) / 2; ++k) {
    __m512bh row[NV];
    for (int v = 0; v < NV; ++v) row[v] = (__m512bh)_mm512_loadu_ps(b + k * NR + v * W);
    for (int i = 0; i < MR; ++i)
      for (int v = 0; v < NV; ++v)
        acc[i][v] = _mm512_dpbf16_ps(acc[i][v], (__m512bh)_mm512_set1_ps(a[k * MR + i]), row[v]);
  }
  for (int i = 0; i < MR; ++i)
    for (int v = 0; v < NV; ++v) _mm512_storeu_ps(c + i * ldc + v * W, acc[i][v]);
}
#endif

template <class T>
void read_tile(float* t, const T* c, int64_t ldc, int64_t m, int64_t n, bool load) {
  for (int64_t i = 0; i < MR; ++i)
    for (int64_t v = 0; v < NR; v += W)
      vstore(t + i * NR + v, load && i < m && v < n ? vload_n(c + i * ldc + v, n - v) : vzero());
}

template <class T>
void write_tile(T* c, const float* t, int64_t ldc, int64_t m, int64_t n) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t v = 0; v < n; v += W) vstore_n(c + i * ldc + v, vload(t + i * NR + v), n - v);
}

template <class T>
void tile(const Job* j, int64_t row, int64_t col) {
  const MatmulArgs* m = j->args;
  int64_t ldc = m->out.strides[1], even = (j->kc + 1) / 2 * 2;
  T* c = static_cast<T*>(m->out.data) + j->batch * m->out.strides[0] + row * ldc + col;
  const float *a = j->a + row * even, *b = j->b + col * even;
  alignas(64) float t[MR * NR];
  read_tile(t, c, ldc, smaller(MR, m->M - row), smaller(NR, m->N - col), j->k0 > 0 || m->out.accumulate);
#if defined(__AVX512BF16__)
  if (pairs(m))
    multiply_pairs(t, NR, a, b, j->kc);
  else
#endif
    multiply(t, NR, a, b, j->kc);
  write_tile(c, t, ldc, smaller(MR, m->M - row), smaller(NR, m->N - col));
}

void block(void* p, int64_t i) {
  auto* j = static_cast<const Job*>(p);
  const MatmulArgs* m = j->args;
  int64_t across = ceil_div(m->N, NC), row0 = i / across * MC, col0 = i % across * NC;
  for (int64_t col = col0; col < smaller(col0 + NC, m->N); col += NR)
    for (int64_t row = row0; row < smaller(row0 + MC, m->M); row += MR)
      m->out.dtype == DType::f32 ? tile<float>(j, row, col) : tile<uint16_t>(j, row, col);
}

bool floating(DType t) { return t == DType::f32 || t == DType::bf16; }

}  // namespace

int64_t matmul_workspace(const MatmulArgs* a, int32_t) {
  int64_t even = (k_block(a) + 1) / 2 * 2;
  return (ceil_div(a->M, MR) * MR + ceil_div(a->N, NR) * NR) * even * 4 + 64;
}

Status matmul(Context* ctx, const MatmulArgs* a) {
  if (!floating(a->out.dtype) || !floating(a->a.dtype) || !floating(a->b.dtype) || !floating(a->compute))
    return Status::unsupported;
  if (a->out.strides[2] != 1 && a->N > 1) return Status::unsupported;
  if (ctx->workspace_bytes < matmul_workspace(a, ctx->threads)) return Status::workspace;
  int64_t step = k_block(a), even = (step + 1) / 2 * 2;
  float* panels_a = static_cast<float*>(ctx->workspace);
  Job j{a, 0, 0, 0, panels_a, panels_a + ceil_div(a->M, MR) * MR * even};
  for (j.batch = 0; j.batch < a->batch; ++j.batch)
    for (j.k0 = 0; j.k0 < a->K || (a->K == 0 && j.k0 == 0); j.k0 += step > 0 ? step : 1) {
      j.kc = smaller(step, a->K - j.k0);
      ctx->parallel_for(ctx, ceil_div(a->M, MR) + ceil_div(a->N, NR), pack, &j);
      ctx->parallel_for(ctx, ceil_div(a->M, MC) * ceil_div(a->N, NC), block, &j);
    }
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
