// The register tiles of attention. Operands are 32-bit items: one float32, or two neighbouring bfloat16 along the
// summed dimension. Every element is one chain of multiply-adds in the order of that dimension.
#pragma once
#include <type_traits>

#include "cpu/pack.h"

namespace gristmill::GM_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 12, kVectors = 2;  // 24 of 32 registers accumulate
#else
constexpr int kRows = 6, kVectors = 1;
#endif
constexpr int kPanel = kVectors * W;
constexpr int64_t kStride = 272;  // items from row to row of a strip: 256 and a cache line against conflicts

inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How numbers lie in items. `along` and `across` give sixteen items of n numbers that follow each other in memory, or
// of sixteen columns (n of them) of rows `stride` apart, of which `rows` are left; what is not there is 0.
struct Single {
  static constexpr int kEach = 1;  // numbers in an item
  static vf madd(vf a, vf b, vf c) { return vfma(a, b, c); }
  static void store(float* items, vf x) { vstore(items, x); }
  static vf join(const vf* x) { return x[0]; }
  static vf negate(vf items) { return -items; }
  template <class T>
  static vf along(const T* p, int64_t n) {
    return vload_n(p, n);
  }
  template <class T>
  static vf across(const T* p, int64_t, int64_t, int64_t n) {
    return vload_n(p, n);
  }
};

#if defined(__AVX512BF16__)
struct Pairs {
  static constexpr int kEach = 2;
  static vf madd(vf a, vf b, vf c) { return vf{{_mm512_dpbf16_ps(c.r[0], (__m512bh)a.r[0], (__m512bh)b.r[0])}}; }
  static void store(float* items, vf x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(items), (__m256i)_mm512_cvtneps_pbh(x.r[0]));
  }
  // Lane by lane the two numbers of an item.
  static vf join(const vf* x) {
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x[0].r[0]));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x[1].r[0]));
    return bits(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
  static vf negate(vf items) {
    return bits(_mm512_xor_si512(_mm512_castps_si512(items.r[0]), _mm512_set1_epi16(-0x8000)));
  }
  // The first of each pair alone: its partner may be infinite, and 0 times that is NaN.
  static vf first_only(vf items) {
    return bits(_mm512_and_si512(_mm512_castps_si512(items.r[0]), _mm512_set1_epi32(0xffff)));
  }
  static vf second_only(vf items) {
    return bits(_mm512_and_si512(_mm512_castps_si512(items.r[0]), _mm512_set1_epi32(-0x10000)));
  }
  static vf along(const uint16_t* p, int64_t n) {
    return bits(n >= 32 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16((1u << n) - 1, p));
  }
  static vf across(const uint16_t* p, int64_t stride, int64_t rows, int64_t n) {
    __m512i low = half(p, n), high = rows > 1 ? half(p + stride, n) : _mm512_setzero_si512();
    return bits(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }

 private:
  static vf bits(__m512i x) { return vf{{_mm512_castsi512_ps(x)}}; }
  static __m512i half(const uint16_t* p, int64_t n) {
    return _mm512_cvtepu16_epi32(n >= 16 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))
                                         : _mm256_maskz_loadu_epi16((1u << n) - 1, p));
  }
};
#endif

// f(constant) with the number of rows as a constant: 1, or even up to kRows.
template <class F>
inline void by_rows(int64_t rows, const F& f) {
  auto call = [&](auto n) {
    if constexpr (n.value <= kRows) f(n);
  };
  switch (rows) {
    case 1: return call(std::integral_constant<int, 1>{});
    case 2: return call(std::integral_constant<int, 2>{});
    case 4: return call(std::integral_constant<int, 4>{});
    case 6: return call(std::integral_constant<int, 6>{});
    case 8: return call(std::integral_constant<int, 8>{});
    case 10: return call(std::integral_constant<int, 10>{});
    default: return call(std::integral_constant<int, 12>{});
  }
}

// f(row, rows) over rows from `row` to `end`: four at a time, then what is left.
template <class F>
inline void by_four(int64_t row, int64_t end, const F& f) {
  for (; row + 4 <= end; row += 4) f(row, std::integral_constant<int, 4>{});
  if (end - row == 3) f(row, std::integral_constant<int, 3>{});
  if (end - row == 2) f(row, std::integral_constant<int, 2>{});
  if (end - row == 1) f(row, std::integral_constant<int, 1>{});
}

// Every loop over accumulators is unrolled by name: an array that is not never leaves the stack (g++ 12).

// acc[r] += a[r][k] b[k] for items k below n; a's rows lie AR apart and its items AK, b's ldb.
template <class M, int64_t AR, int64_t AK, int R, int V>
[[gnu::always_inline]] inline void chain(vf (&acc)[R][V], const float* a, const float* b, int64_t ldb, int64_t n) {
  for (int64_t k = 0; k < n; ++k) {
    vf row[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) row[v] = vload(b + k * ldb + v * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[r][v] = M::madd(vset(a[r * AR + k * AK]), row[v], acc[r][v]);
  }
}

// The next n items as a causal mask leaves them: row r takes r numbers more than row 0, whose last number is the one
// before them (Single) or the first of them (Pairs). What a row does not take may be infinite.
template <class M, int64_t AR, int R, int V, int k = 0>
[[gnu::always_inline]] inline void last_steps(vf (&acc)[R][V], const float* a, const float* b, int64_t ldb, int64_t n) {
  constexpr int kWhole = k * M::kEach + 1;  // first row that takes all of item k
  constexpr int kPart = M::kEach == 2 ? kWhole - 1 : R;
  if constexpr (kWhole < R || kPart < R) {
    if (k >= n) return;
    vf row[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) row[v] = vload(b + k * ldb + v * W);
    if constexpr (kPart < R)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v)
        acc[kPart][v] = M::madd(vset(a[kPart * AR + k]), M::first_only(row[v]), acc[kPart][v]);
#pragma GCC unroll 16
    for (int r = kWhole; r < R; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[r][v] = M::madd(vset(a[r * AR + k]), row[v], acc[r][v]);
    last_steps<M, AR, R, V, k + 1>(acc, a, b, ldb, n);
  }
}

// s[r][0 .. V W) = a[r] . panel; the rows of s lie LD apart.
template <class M, int64_t LD, int R, int V>
void score_tile(float* s, const float* a, const float* panel, int64_t items) {
  vf acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[r][v] = vzero();
  chain<M, kStride, 1>(acc, a, panel, kPanel, items);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) vstore(s + r * LD + v * W, acc[r][v]);
}

// The first n columns of s, a panel after the other; `meanwhile` is called for each.
template <class M, int64_t LD, int R, class F>
void score_rows(float* s, const float* a, const float* panels, int64_t items, int64_t n, const F& meanwhile) {
  for (int64_t j = 0; j < n; j += kPanel) {
    meanwhile();
    if (n - j > W)
      score_tile<M, LD, R, kVectors>(s + j, a, panels + j * items, items);
    else
      score_tile<M, LD, R, 1>(s + j, a, panels + j * items, items);
  }
}

// f(d, vectors) over P columns, kVectors at a time as far as they go.
template <class F>
inline void by_columns(int64_t P, const F& f) {
  int64_t d = 0;
  for (; d + kPanel <= P; d += kPanel) f(d, std::integral_constant<int, kVectors>{});
  for (; d < P; d += W) f(d, std::integral_constant<int, 1>{});
}

// How many of `left` rows the next strip takes: all strips alike, an even number, or 1 to begin at an even place.
inline int64_t strip_rows(int64_t left, bool odd) {
  if (odd || left == 1) return 1;
  int64_t rows = ceil_div(left, ceil_div(left, kRows));
  return smaller((rows + 1) / 2 * 2, left / 2 * 2);
}

// Items every row takes, and items of `last_steps` after them.
struct Steps {
  int64_t shared, last;
};

// o[r] = old[r] o[r] + fresh[r] (p[r] . values), V W columns.
template <class M, int R, int V>
void value_tile(float* o, const float* p, const float* values, int64_t ldv, Steps n, const float* old,
                const float* fresh) {
  vf acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[r][v] = vzero();
  chain<M, kStride, 1>(acc, p, values, ldv, n.shared);
  last_steps<M, kStride>(acc, p + n.shared, values + n.shared * ldv, ldv, n.last);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      float* to = o + r * kStride + v * W;
      vstore(to, vfma(acc[r][v], vset(fresh[r]), vload(to) * vset(old[r])));
    }
}

constexpr int kStored = kVectors == 2 ? 4 : 1;  // vectors of a row of values at a time, for up to four rows

// o[r] += p[r] . values, which lie as they are stored: `keys` rows `stride` apart, V W columns of n. `meanwhile` is
// called for each item.
template <class M, int R, int V, class T, class F>
void stored_value_tile(float* o, const float* p, const T* values, int64_t stride, int64_t keys, int64_t n,
                       const F& meanwhile) {
  vf acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[r][v] = vload(o + r * kStride + v * W);
  for (int64_t i = 0; i < keys; i += M::kEach) {
    meanwhile();
    vf row[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) row[v] = M::across(values + i * stride + v * W, stride, keys - i, n - v * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[r][v] = M::madd(vset(p[r * kStride + i / M::kEach]), row[v], acc[r][v]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) vstore(o + r * kStride + v * W, acc[r][v]);
}

}  // namespace
}  // namespace gristmill::GM_ISA
