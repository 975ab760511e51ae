// Small products, whose operands lie in the first caches: packing them would take as long as the product. The register
// tile takes a from where it lies, and the first strip of a panel leaves b packed for those below it. The chains over k
// are those of the others.
#pragma once
#include "cpu/matmul_operand.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kSmallWork = 128 * 128 * 128;
constexpr int64_t kSmallSteps = 256;    // of k: a panel of b stays in the first cache
constexpr int64_t kSmallRows = 2 * MR;  // of a task, where a product has more than twice as many and threads share it

#if defined(__AVX512F__)

// Both along their rows and of the type that the tile computes in; pairs are whole.
inline bool is_small(const MatmulArgs* m) {
  bool typed = m->a.dtype == m->b.dtype && m->a.dtype == m->compute && (m->compute == DType::f32 || kPairs) &&
               (m->out.dtype == DType::f32 || m->compute == DType::bf16);
  return typed && !m->b.packed && m->a.strides[2] == 1 && m->b.strides[2] == 1 && m->M * m->N * m->K <= kSmallWork &&
         steps(m, m->K) <= kSmallSteps && (m->compute == DType::f32 || m->K % 2 == 0);
}

// NR columns of b, or fewer: where they lie, and their steps one after the other, once they have been taken.
template <class T>
struct SmallPanel {
  const T* data;
  int64_t row, n;
  __mmask16 there[NV];
  float* packed;
};

template <class T>
inline vf load_some(const T* p, __mmask16 m) {
  return {{_mm512_castsi512_ps(wide(p, m))}};
}
inline void store_some(float* p, vf v, __mmask16 m) { _mm512_mask_storeu_ps(p, m, v.r[0]); }
inline void store_some(uint16_t* p, vf v, __mmask16 m) { _mm256_mask_storeu_epi16(p, m, to_bf16(v.r[0])); }

inline void step_of(vf (&row)[NV], const SmallPanel<float>& b, int64_t k) {
#pragma GCC unroll 16
  for (int v = 0; v < NV; ++v) row[v] = load_some(b.data + k * b.row + v * W, b.there[v]);
}
// Two rows, whose columns become pairs.
inline void step_of(vf (&row)[NV], const SmallPanel<uint16_t>& b, int64_t k) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i left = _mm512_or_epi32(lane, _mm512_slli_epi32(_mm512_or_epi32(lane, _mm512_set1_epi32(32)), 16));
  const __m512i right = _mm512_or_epi32(left, _mm512_set1_epi16(16));
  const __mmask32 m = b.there[0] | static_cast<__mmask32>(b.there[1]) << 16;
  const uint16_t* p = b.data + 2 * k * b.row;
  __m512i x = _mm512_maskz_loadu_epi16(m, p), y = _mm512_maskz_loadu_epi16(m, p + b.row);
  row[0] = {{_mm512_castsi512_ps(_mm512_permutex2var_epi16(x, left, y))}};
  row[1] = {{_mm512_castsi512_ps(_mm512_permutex2var_epi16(x, right, y))}};
}

// R rows of c, = or += a b. A step of a row of a is 32 bits; rows lie `lda` bytes apart.
template <class Mode, bool packs, int R, class T, class To>
[[gnu::noinline]] void small_tile(To* to, int64_t ldt, const char* a, int64_t lda, const SmallPanel<T>& b, bool add) {
  constexpr int kBases = (R + 2) / 3;  // an address is a base and a small multiple of lda
  const char* base[kBases];
  vf acc[R][NV];
#pragma GCC unroll 16
  for (int i = 0; i < kBases; ++i) base[i] = a + 3 * i * lda;
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) acc[i][v] = vzero(), __builtin_prefetch(to + i * ldt + v * W, 1);
  if (add)
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) acc[i][v] = load_some(to + i * ldt + v * W, b.there[v]);
#pragma GCC unroll 4
  for (int64_t k = 0; k < b.n; ++k) {
    vf row[NV];
    if (packs) step_of(row, b, k);
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v)
      if (packs)
        vstore(b.packed + k * NR + v * W, row[v]);
      else
        row[v] = vload(b.packed + k * NR + v * W);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      float x;  // or a pair
      std::memcpy(&x, base[i / 3] + i % 3 * lda + 4 * k, sizeof x);
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) acc[i][v] = Mode::step(x, row[v], acc[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) store_some(to + i * ldt + v * W, acc[i][v], b.there[v]);
}

struct Small {
  const MatmulArgs* args;
  int64_t batch, rows;  // of a task
  float* panels;        // one for each task
};

template <class Mode, class T, class To>
void small_rows(const Small* s, int64_t row0, int64_t end, float* packed) {
  const MatmulArgs* m = s->args;
  int64_t lda = m->a.strides[1] * static_cast<int64_t>(sizeof(T)), ldc = m->out.strides[1];
  auto* a = reinterpret_cast<const char*>(static_cast<const T*>(m->a.data) + s->batch * m->a.strides[0]);
  const T* data = static_cast<const T*>(m->b.data) + s->batch * m->b.strides[0];
  To* out = static_cast<To*>(m->out.data) + s->batch * m->out.strides[0];
  for (int64_t col = 0; col < m->N; col += NR) {
    SmallPanel<T> b{data + col, m->b.strides[1], steps(m, m->K), {}, packed};
    for (int v = 0; v < NV; ++v) b.there[v] = first(m->N - col - v * W);
    int64_t row = row0;
    auto strip = [&](auto height) {
      To* to = out + row * ldc + col;
      if (row == row0)
        small_tile<Mode, true, height>(to, ldc, a + row * lda, lda, b, m->out.accumulate);
      else
        small_tile<Mode, false, height>(to, ldc, a + row * lda, lda, b, m->out.accumulate);
      row += height;
    };
    while (end - row >= MR) strip(std::integral_constant<int, MR>{});
    if (end - row >= 8) strip(std::integral_constant<int, 8>{});
    if (end - row >= 4) strip(std::integral_constant<int, 4>{});
    while (row < end) strip(std::integral_constant<int, 1>{});
  }
}

inline void small_task(void* p, int64_t i) {
  auto* s = static_cast<const Small*>(p);
  const MatmulArgs* m = s->args;
  int64_t row = i * s->rows, end = smaller(row + s->rows, m->M);
  float* packed = s->panels + i * steps(m, m->K) * NR;
  if (m->compute == DType::f32) return small_rows<Single, float, float>(s, row, end, packed);
  if constexpr (kPairs)
    m->out.dtype == DType::f32 ? small_rows<Pair, uint16_t, float>(s, row, end, packed)
                               : small_rows<Pair, uint16_t, uint16_t>(s, row, end, packed);
}

inline int64_t small_rows_of_task(const MatmulArgs* m, int32_t threads) {
  return threads > 1 && m->M > 2 * kSmallRows ? kSmallRows : m->M;
}

inline int64_t small_workspace(const MatmulArgs* m) {
  return ceil_div(m->M, smaller(m->M, kSmallRows)) * steps(m, m->K) * NR * 4;
}

inline void small_product(Context* ctx, const MatmulArgs* m, int64_t batch) {
  Small s{m, batch, small_rows_of_task(m, ctx->threads), static_cast<float*>(ctx->workspace)};
  ctx->parallel_for(ctx, ceil_div(m->M, s.rows), small_task, &s);
}

#else

inline bool is_small(const MatmulArgs*) { return false; }
inline int64_t small_workspace(const MatmulArgs*) { return 0; }
inline void small_product(Context*, const MatmulArgs*, int64_t) {}

#endif

}  // namespace
}  // namespace gristmill::GM_ISA
