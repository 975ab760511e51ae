// The register tiles of attention's backward pass: weights of a block of queries and keys times rows of either.
#pragma once
#include "cpu/attention_tiles.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kBlock = 128;      // queries, and keys, at a time
constexpr int64_t kLd = kBlock + W;  // from row to row of a block of weights

template <int R, int V>
[[gnu::always_inline]] inline void load_tile(vf (&acc)[R][V], const float* from, int64_t ld) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[r][v] = vload(from + r * ld + v * W);
}
template <int R, int V>
[[gnu::always_inline]] inline void store_tile(float* to, int64_t ld, const vf (&acc)[R][V]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) vstore(to + r * ld + v * W, acc[r][v]);
}

// out[r] += rows[r] . values, where rows are of queries and see keys as Steps says.
template <class M, int R, int V>
void query_tile(float* out, int64_t ld, const float* rows, const float* values, Steps n) {
  vf acc[R][V];
  load_tile(acc, out, ld);
  chain<M, kLd, 1>(acc, rows, values, ld, n.shared);
  last_steps<M, kLd>(acc, rows + n.shared, values + n.shared * ld, ld, n.last);
  store_tile(out, ld, acc);
}

// The first items as a causal mask leaves them to rows of keys, in items from `from` to `to`: row r takes r numbers
// less than row 0, which takes the first number of item 0 (a single row of Pairs: the second).
template <class M, int R, int V, int k = 0>
[[gnu::always_inline]] inline void first_steps(vf (&acc)[R][V], const float* a, const float* b, int64_t ldb, int64_t at,
                                               int64_t to) {
  constexpr int kSteps = M::kEach == 1 ? R - 1 : R == 1 ? 1 : R / 2;
  if constexpr (k < kSteps) {
    constexpr int kWhole = R == 1 ? 0 : k * M::kEach + 1;  // rows that take all of item k
    if (at + k >= 0 && at + k < to) {
      vf row[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) row[v] = vload(b + (at + k) * ldb + v * W);
      const float* weights = a + (at + k) * kLd;
#pragma GCC unroll 16
      for (int r = 0; r < kWhole; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) acc[r][v] = M::madd(vset(weights[r]), row[v], acc[r][v]);
      if constexpr (M::kEach == 2 && kWhole < R)
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v)
          acc[kWhole][v] = M::madd(vset(weights[kWhole]), M::second_only(row[v]), acc[kWhole][v]);
    }
    first_steps<M, R, V, k + 1>(acc, a, b, ldb, at, to);
  }
}

// Which items of a block of queries rows of keys take: `first_steps` from item `at`, all from item `shared` to `end`.
struct Seen {
  int64_t at, shared, end;
};

// out[r] += weights[.][r] . values, where rows are of keys and the sum goes over queries.
template <class M, int R, int V>
void key_tile(float* out, int64_t ld, const float* weights, const float* values, Seen n) {
  vf acc[R][V];
  load_tile(acc, out, ld);
  if (n.at < n.shared) first_steps<M>(acc, weights, values, ld, n.at, smaller(n.shared, n.end));
  int64_t from = larger(n.shared, 0);
  chain<M, 1, kLd>(acc, weights + from * kLd, values + from * ld, ld, n.end - from);
  store_tile(out, ld, acc);
}

}  // namespace
}  // namespace gristmill::GM_ISA
