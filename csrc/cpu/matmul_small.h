// Small products, whose operands lie in the first caches: packing them would take as long as the product. The register
// tile takes a and b from where they lie, by the chains over k of the others.
#pragma once
#include "cpu/matmul_operand.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kSmallWork = 96 * 96 * 96;
constexpr int64_t kSmallRows = 4 * MR;  // of a task

#if defined(__AVX512F__)

// Both along their rows and of the type that the tile computes in; pairs are whole.
inline bool is_small(const MatmulArgs* m) {
  bool typed = m->a.dtype == m->b.dtype && m->a.dtype == m->compute && (m->compute == DType::f32 || kPairs);
  return typed && !m->b.packed && m->a.strides[2] == 1 && m->b.strides[2] == 1 && m->M * m->N * m->K <= kSmallWork &&
         (m->compute == DType::f32 || m->K % 2 == 0);
}

// R rows of c at columns col .. col + NR, fewer at the end of a row, = or += a b.
template <class Step, class Mode, int R, class T, class To>
void small_tile(To* to, int64_t ldt, const T* a, int64_t lda, const Source<T>& b, int64_t col, bool add) {
  int64_t n = b.cols / Step::kEach, cols[NV];
  vf acc[R][NV];
#pragma GCC unroll 16
  for (int v = 0; v < NV; ++v) {
    cols[v] = larger(0, smaller(W, b.rows - col - v * W));
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) acc[i][v] = add ? vload_n(to + i * ldt + v * W, cols[v]) : vzero();
  }
#pragma GCC unroll 2
  for (int64_t k = 0; k < n; ++k) {
    vf row[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) row[v] = {{_mm512_castsi512_ps(across(Step{}, b, col + v * W, k, first(cols[v])))}};
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      float x;  // or a pair
      std::memcpy(&x, a + i * lda + k * Step::kEach, sizeof x);
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) acc[i][v] = Mode::step(x, row[v], acc[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) vstore_n(to + i * ldt + v * W, acc[i][v], cols[v]);
}

struct Small {
  const MatmulArgs* args;
  int64_t batch;
};

template <class Step, class Mode, class T, class To>
void small_rows(const Small* s, int64_t row, int64_t end) {
  const MatmulArgs* m = s->args;
  int64_t lda = m->a.strides[1], ldc = m->out.strides[1];
  const T* a = static_cast<const T*>(m->a.data) + s->batch * m->a.strides[0];
  Source<T> b{static_cast<const T*>(m->b.data) + s->batch * m->b.strides[0], 1, m->b.strides[1], m->N, m->K};
  To* out = static_cast<To*>(m->out.data) + s->batch * m->out.strides[0];
  auto strip = [&](auto rows) {
    for (int64_t col = 0; col < m->N; col += NR)
      small_tile<Step, Mode, rows>(out + row * ldc + col, ldc, a + row * lda, lda, b, col, m->out.accumulate);
    row += rows;
  };
  while (end - row >= MR) strip(std::integral_constant<int, MR>{});
  if (end - row >= 8) strip(std::integral_constant<int, 8>{});
  if (end - row >= 4) strip(std::integral_constant<int, 4>{});
  while (row < end) strip(std::integral_constant<int, 1>{});
}

inline void small_task(void* p, int64_t i) {
  auto* s = static_cast<const Small*>(p);
  int64_t row = i * kSmallRows, end = smaller(row + kSmallRows, s->args->M);
  bool f32 = s->args->out.dtype == DType::f32;
  if (s->args->compute == DType::f32)
    return f32 ? small_rows<Plain, Single, float, float>(s, row, end)
               : small_rows<Plain, Single, float, uint16_t>(s, row, end);
  if constexpr (kPairs)
    f32 ? small_rows<Paired, Pair, uint16_t, float>(s, row, end)
        : small_rows<Paired, Pair, uint16_t, uint16_t>(s, row, end);
}

inline void small_product(Context* ctx, const MatmulArgs* m, int64_t batch) {
  Small s{m, batch};
  ctx->parallel_for(ctx, ceil_div(m->M, kSmallRows), small_task, &s);
}

#else

inline bool is_small(const MatmulArgs*) { return false; }
inline void small_product(Context*, const MatmulArgs*, int64_t) {}

#endif

}  // namespace
}  // namespace gristmill::GM_ISA
