// What a loop over a row takes at a time: a vector of float32, or with AVX-512 two of a row that has bfloat16: one
// register of 32, from which a permutation each takes the two (1.6 to 2.0 cycles a vector to copy; one by one 4.0, of
// which 1.0 is the check for denormals: here the instruction flushes them).
#pragma once
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

// Of a row of elements O: uint16_t (bfloat16) where one of its operands has it, else float.
template <class O>
constexpr int kVectors = 1;
#if defined(__AVX512F__)
template <>
constexpr int kVectors<uint16_t> = 2;
#endif
template <class O>
constexpr int64_t kBlock = kVectors<O> * W;

template <class O>
struct Vectors {
  vf v[kVectors<O>];
};

template <class... T>
using Mixed = std::conditional_t<((sizeof(T) == 2) || ...), uint16_t, float>;

GM_INLINE int64_t not_below_0(int64_t n) { return n > 0 ? n : 0; }

#if defined(__AVX512F__)
GM_INLINE __mmask32 pairs_below(int64_t n) { return static_cast<__mmask32>((uint64_t{1} << (n < 32 ? n : 32)) - 1); }

// Elements first .. first + 15, each in the upper half of a lane above zeros.
GM_INLINE vf widened(__m512i pairs, int first) {
  __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i upper = _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(first)), 16);
  return vf{{_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, upper, pairs))}};
}

GM_INLINE Vectors<uint16_t> bload_pairs(const uint16_t* p, int64_t n) {
  __m512i pairs = n >= 2 * W ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(pairs_below(n), p);
  return {{widened(pairs, 0), widened(pairs, W)}};
}
#endif

// The first n elements, 0 past them.
template <class O, class T>
GM_INLINE Vectors<O> bload(const T* p, int64_t n) {
  if constexpr (kVectors<O> == 1) return {{vload_n(p, n)}};
#if defined(__AVX512F__)
  else if constexpr (sizeof(T) == 2)
    return bload_pairs(p, n);
  else
    return {{vload_n(p, n), vload_n(p + W, not_below_0(n - W))}};
#endif
}

template <class O, class T>
GM_INLINE void bstore(T* p, const Vectors<O>& b, int64_t n) {
  if constexpr (kVectors<O> == 1) return vstore_n(p, b.v[0], n);
#if defined(__AVX512BF16__)
  if constexpr (kVectors<O> == 2 && sizeof(T) == 2) {
    __m512i pairs = (__m512i)_mm512_cvtne2ps_pbh(b.v[1].r[0], b.v[0].r[0]);
    if (n >= 2 * W) return _mm512_storeu_si512(p, pairs);
    return _mm512_mask_storeu_epi16(p, pairs_below(n), pairs);
  }
#endif
  for (int k = 0; k < kVectors<O>; ++k) vstore_n(p + k * W, b.v[k], not_below_0(n - k * W));
}

// f of each vector. Not GM_INLINE: then g++ 12 would leave f itself a call, in spite of `flatten` below.
template <class O, class F, class... B>
inline Vectors<O> each_of(const F& f, const B&... b) {
  Vectors<O> o;
#pragma GCC unroll 2
  for (int k = 0; k < kVectors<O>; ++k) o.v[k] = f(b.v[k]...);
  return o;
}

// b in the first n lanes, `rest` in the others.
template <class O>
GM_INLINE Vectors<O> bfirst(Vectors<O> b, int64_t n, float rest) {
#pragma GCC unroll 2
  for (int k = 0; k < kVectors<O>; ++k) b.v[k] = vfirst(b.v[k], not_below_0(n - k * W), rest);
  return b;
}

template <class O, class T>
inline void bput(T* p, const Vectors<O>& b, int64_t n, bool add) {
  bstore<O>(p, add ? each_of<O>([](vf x, vf y) { return x + y; }, bload<O>(p, n), b) : b, n);
}

// f(j, n) for each block of a row; n is a constant but in the last one, where that is not full.
template <class O, class F>
__attribute__((flatten)) inline void each_block(int64_t cols, const F& f) {
  int64_t j = 0;
  for (; j + kBlock<O> <= cols; j += kBlock<O>) f(j, std::integral_constant<int64_t, kBlock<O>>{});
  if (j < cols) f(j, cols - j);
}

// out[j] = f(in[j], ...), or added to it, for elements of one type.
template <class T, class F, class... In>
inline void map(T* out, int64_t cols, bool add, const F& f, const In*... in) {
  each_block<T>(cols, [=](int64_t j, auto n) { bput<T>(out + j, each_of<T>(f, bload<T>(in + j, n)...), n, add); });
}

// K sums of a row: f(j, n, sums) adds a block to each. Four chains, as one would wait for each addition.
template <class O, int K, class F>
__attribute__((flatten)) inline void sum_blocks(float (&out)[K], int64_t cols, const F& f) {
  constexpr int kChains = 4 / kVectors<O>;
  Vectors<O> s[kChains][K] = {};
  int64_t j = 0;
  for (; j + kChains * kBlock<O> <= cols; j += kChains * kBlock<O>)
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) f(j + c * kBlock<O>, std::integral_constant<int64_t, kBlock<O>>{}, s[c]);
  for (; j < cols; j += kBlock<O>) f(j, cols - j, s[0]);
#pragma GCC unroll 2
  for (int k = 0; k < K; ++k) {
    if constexpr (kVectors<O> == 2)
      out[k] = vsum((s[0][k].v[0] + s[0][k].v[1]) + (s[1][k].v[0] + s[1][k].v[1]));
    else
      out[k] = vsum((s[0][k].v[0] + s[1][k].v[0]) + (s[2][k].v[0] + s[3][k].v[0]));
  }
}

// sum of f(in[j], ...) over a row, where f makes 0 of the 0 past its end.
template <class O, class F, class... In>
inline float sum_of_blocks(int64_t cols, const F& f, const In*... in) {
  float sum[1];
  sum_blocks<O>(sum, cols,
                [=](int64_t j, auto n, Vectors<O>(&s)[1]) { s[0] = each_of<O>(f, s[0], bload<O>(in + j, n)...); });
  return sum[0];
}

}  // namespace
}  // namespace gristmill::GM_ISA
