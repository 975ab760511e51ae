// The register tile of matmul: R x NR of c over a block of k, operands as packed panels. It walks k once, each element
// one fma chain that starts from what c holds, so neither R nor the block of k shows in the bits.
#pragma once
#include "core/simd.h"

namespace gristmill::GM_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int MR = 12, NV = 2;  // 24 of 32 registers accumulate, 2 hold b, one a
constexpr bool kDown = false;   // the next tile is the one to the right: b streams from the second-level cache
#else
constexpr int MR = 6, NV = 1;
constexpr bool kDown = true;  // the one below: a step is too short for that, b stays in the first (bench/LOG.md)
#endif
constexpr int NR = NV * W;
constexpr int64_t kAhead = 8;  // steps of k between the prefetch of b and its use

// What one step of k takes from a panel is 32 bits a row: a float32, or a pair of bfloat16.
struct Single {
  static vf step(float a, vf b, vf c) { return vfma(vset(a), b, c); }
};
#if defined(__AVX512BF16__)
struct Pair {
  static vf step(float a, vf b, vf c) {
    return {{_mm512_dpbf16_ps(c.r[0], (__m512bh)_mm512_set1_ps(a), (__m512bh)b.r[0])}};
  }
};
constexpr bool kPairs = true;
#else
using Pair = Single;
constexpr bool kPairs = false;  // no such product: bfloat16 is widened
#endif

struct Nothing {};  // where a tile starts from zero

// Every loop over accumulators is unrolled by name: an array that is not never leaves the stack (g++ 12).
template <int R, int V, class From>
inline void begin(vf (&acc)[R][V], const From* from, int64_t ldf) {
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[i][v] = vload(from + i * ldf + v * W);
}
template <int R, int V>
inline void begin(vf (&acc)[R][V], const Nothing*, int64_t) {
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[i][v] = vzero();
}
template <int R, int V, class To>
inline void store(To* to, int64_t ldt, const vf (&acc)[R][V]) {
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) vstore(to + i * ldt + v * W, acc[i][v]);
}

// to (R, NR) = from + a (steps, H)^T b (steps, NR). The lines of the tile that comes next are fetched meanwhile.
// One row takes b no faster than memory brings it: fetching ahead would get in the way (bench/LOG.md).
template <class Mode, int R, int H = MR, class From, class To>
void tile(To* to, int64_t ldt, const From* from, int64_t ldf, const float* a, const float* b, int64_t steps) {
  vf acc[R][NV];
  begin(acc, from, ldf);
  const auto next = reinterpret_cast<uintptr_t>(to) + sizeof(To) * (kDown ? R * ldt : NR);  // may be no tile of c
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < NV; ++v) __builtin_prefetch(reinterpret_cast<To*>(next) + i * ldt + v * W, 1);
#pragma GCC unroll 4
  for (int64_t k = 0; k < steps; ++k) {
    vf row[NV];
    for (int v = 0; v < NV; ++v) {
      row[v] = vload(b + k * NR + v * W);
      if (R > 1) __builtin_prefetch(b + (k + kAhead) * NR + v * W);
    }
    if (R > 1) __builtin_prefetch(a + (k + 2 * kAhead) * H);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
      for (int v = 0; v < NV; ++v) acc[i][v] = Mode::step(a[k * H + i], row[v], acc[i][v]);
  }
  store(to, ldt, acc);
}

// Rows of the smallest tile that holds `rows`.
inline int64_t tile_rows(int64_t rows) { return rows > MR * 2 / 3 ? MR : rows > 4 ? MR * 2 / 3 : rows > 1 ? 4 : 1; }

template <class Mode, class From, class To>
void tile_of(int64_t rows, To* to, int64_t ldt, const From* from, int64_t ldf, const float* a, const float* b,
             int64_t n) {
  switch (tile_rows(rows)) {
    case MR: return tile<Mode, MR>(to, ldt, from, ldf, a, b, n);
    case 1: return tile<Mode, 1>(to, ldt, from, ldf, a, b, n);
  }
  if (tile_rows(rows) == MR * 2 / 3) return tile<Mode, MR * 2 / 3>(to, ldt, from, ldf, a, b, n);
  tile<Mode, 4>(to, ldt, from, ldf, a, b, n);
}

}  // namespace
}  // namespace gristmill::GM_ISA
