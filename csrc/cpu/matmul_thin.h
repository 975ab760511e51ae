// Few rows of a: every element of b is used so seldom that a packed copy of it in memory would cost more than the
// product. Up to kFewRows, b is taken from where it lies, turned in registers; above, piece by piece through a buffer
// in the first-level cache. The chains over k are those of the register tile.
#pragma once
#include "cpu/matmul_tile.h"
#include "cpu/pack.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kThin = 8 * MR;   // rows of a thin product, at most
constexpr int64_t kRowsAtOnce = 4;  // of a b whose columns lie side by side
constexpr int64_t kPiece = 96;      // steps of b in the buffer: 12 kB

#if defined(__AVX512F__)

constexpr int kFewRows = 4;

// c (R, NR) += a b for NR columns of b, each of which lies along k.
template <class Step, class Mode, int R, class T>
void few_along(float* c, const float* a, const Source<T>& b, int64_t col, int64_t steps) {
  for (int64_t v = 0; v < NR; v += W) {
    vf acc[R][1];
    begin(acc, c + v, NR);
    for (int64_t k = 0; k < steps; k += 16) {
      __m512i t[16];
      turned<Step>(t, b, col + v, k);
      int64_t n = smaller(16, steps - k);
#pragma GCC unroll 16
      for (int u = 0; u < 16; ++u) {
        if (u >= n) break;
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i)
          acc[i][0] = Mode::step(a[(k + u) * MR + i], vf{{_mm512_castsi512_ps(t[u])}}, acc[i][0]);
      }
    }
    store(c + v, NR, acc);
  }
}

// c (R, width) += a b for columns of b that lie side by side: memory is read along kRowsAtOnce of its rows.
template <class Step, class Mode, int R, class T>
void few_across(float* c, int64_t width, const float* a, const Source<T>& b, int64_t col, int64_t steps) {
  for (int64_t k = 0; k < steps; k += kRowsAtOnce)
    for (int64_t v = 0; v < width; v += W) {
      __mmask16 m = first(b.rows - col - v);
      vf acc[R][1];
      begin(acc, c + v, width);
#pragma GCC unroll 4
      for (int64_t u = 0; u < kRowsAtOnce; ++u) {
        if (k + u >= steps) break;
        vf row{{_mm512_castsi512_ps(across(Step{}, b, col + v, k + u, m))}};
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) acc[i][0] = Mode::step(a[(k + u) * MR + i], row, acc[i][0]);
      }
      store(c + v, width, acc);
    }
}

#else

constexpr int kFewRows = 0;  // no turning in registers
template <class Step, class Mode, int R, class T>
void few_along(float*, const float*, const Source<T>&, int64_t, int64_t) {}
template <class Step, class Mode, int R, class T>
void few_across(float*, int64_t, const float*, const Source<T>&, int64_t, int64_t) {}

#endif

}  // namespace
}  // namespace gristmill::GM_ISA
