// The operands of matmul as panels: a in strips of MR rows, b in panels of NR columns, over a block of k.
#pragma once
#include "cpu/matmul_tile.h"
#include "cpu/pack.h"
#include "kernels.h"

namespace gristmill::GM_ISA {
namespace {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

inline bool pairs(const MatmulArgs* a) { return kPairs && a->compute == DType::bf16; }

// Steps the register tile makes over k; the floats of one row of a panel.
inline int64_t steps(const MatmulArgs* a, int64_t k) { return pairs(a) ? (k + 1) / 2 : k; }

template <int P, class T>
void pack_typed(const MatmulArgs* m, float* dst, const Source<T>& s, int64_t row, int64_t panels, int64_t n) {
  if constexpr (kPairs)
    if (pairs(m)) return pack_panels<Paired, P>(dst, s, row, panels, n);
  if (m->compute == DType::bf16 && sizeof(T) == 4) return pack_panels<Rounded, P>(dst, s, row, panels, n);
  pack_panels<Plain, P>(dst, s, row, panels, n);
}

// Panels of P rows from `row` of an operand (rows, K) with strides (sr, sk), over kc from k0.
template <int P>
void pack_operand(const MatmulArgs* m, float* dst, const View& v, int64_t batch, int64_t rows, int64_t sr, int64_t sk,
                  int64_t row, int64_t panels, int64_t k0, int64_t kc) {
  int64_t at = batch * v.strides[0] + k0 * sk, n = steps(m, kc);
  if (v.dtype == DType::f32)
    return pack_typed<P>(m, dst, Source<float>{static_cast<const float*>(v.data) + at, sr, sk, rows, kc}, row, panels,
                         n);
  pack_typed<P>(m, dst, Source<uint16_t>{static_cast<const uint16_t*>(v.data) + at, sr, sk, rows, kc}, row, panels, n);
}

template <int H = MR>
void pack_a(const MatmulArgs* m, float* dst, int64_t batch, int64_t strip, int64_t count, int64_t k0, int64_t kc) {
  pack_operand<H>(m, dst, m->a, batch, m->M, m->a.strides[1], m->a.strides[2], strip * H, count, k0, kc);
}
inline void pack_b(const MatmulArgs* m, float* dst, int64_t batch, int64_t panel, int64_t count, int64_t k0,
                   int64_t kc) {
  pack_operand<NR>(m, dst, m->b, batch, m->N, m->b.strides[2], m->b.strides[1], panel * NR, count, k0, kc);
}

}  // namespace
}  // namespace gristmill::GM_ISA
