// What a loop over a row takes at a time: a vector of float32, or with AVX-512 two of a row that has bfloat16, its even
// and its odd elements. A shift and a mask take both from one register, and one store writes both (2.1 cycles a vector
// to copy; in their order 4.0, of which 1.0 is the check for denormals: here the instruction flushes them).
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
struct Block {
  vf v[kVectors<O>];
};

template <class... T>
using Mixed = std::conditional_t<((sizeof(T) == 2) || ...), uint16_t, float>;

#if defined(__AVX512F__)
// The lanes that an exchange of order takes, of 32-bit or of 16-bit lanes of two registers.
template <class L, int n>
struct Lanes {
  L at[n];
  constexpr Lanes(int first, int step, int wrap) : at() {
    for (int i = 0; i < n; ++i) at[i] = static_cast<L>(first + i * step % wrap + i * step / wrap);
  }
};
alignas(64) inline constexpr Lanes<int32_t, 32> kEvenOdd(0, 2, 32);  // 0 2 4 .. 30 1 3 .. 31
alignas(64) inline constexpr Lanes<int32_t, 32> kTurns(0, 16, 32);   // 0 16 1 17 .. 31
alignas(64) inline constexpr Lanes<int16_t, 32> kTurns16(0, 16, 32);

GM_INLINE Block<uint16_t> exchanged(vf a, vf b, const Lanes<int32_t, 32>& lanes) {
  __m512i lo = _mm512_load_si512(lanes.at), hi = _mm512_load_si512(lanes.at + W);
  return {{{{_mm512_permutex2var_ps(a.r[0], lo, b.r[0])}}, {{_mm512_permutex2var_ps(a.r[0], hi, b.r[0])}}}};
}

GM_INLINE __mmask32 pairs_below(int64_t n) { return static_cast<__mmask32>((uint64_t{1} << (n < 32 ? n : 32)) - 1); }

// Both in one register, the second in the upper halves' place; bit 16 of the sum rounds to nearest even.
GM_INLINE __m512i to_bf16(vf even, vf odd) {
#if defined(__AVX512BF16__)
  __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd.r[0], even.r[0]);
  return _mm512_permutexvar_epi16(_mm512_load_si512(kTurns16.at), halves);
#else
  auto rounded = [](__m512 v) {
    __m512i u = _mm512_castps_si512(v), lowest = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), lowest);
    return _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
  };
  return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(rounded(even.r[0]), 16), rounded(odd.r[0]));
#endif
}
#endif

// The first n elements, 0 past them.
template <class O, class T>
GM_INLINE Block<O> bload(const T* p, int64_t n) {
  if constexpr (kVectors<O> == 1) {
    return {{vload_n(p, n)}};
  } else {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return exchanged(vload_n(p, n), n > W ? vload_n(p + W, n - W) : vzero(), kEvenOdd);
    __m512i u = n >= 2 * W ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(pairs_below(n), p);
    __m512i odd = _mm512_and_si512(u, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000)));
    return {{{{_mm512_castsi512_ps(_mm512_slli_epi32(u, 16))}}, {{_mm512_castsi512_ps(odd)}}}};
#endif
  }
}

template <class O, class T>
GM_INLINE void bstore(T* p, const Block<O>& b, int64_t n) {
  if constexpr (kVectors<O> == 1) {
    vstore_n(p, b.v[0], n);
  } else {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
      Block<O> o = exchanged(b.v[0], b.v[1], kTurns);
      vstore_n(p, o.v[0], n);
      if (n > W) vstore_n(p + W, o.v[1], n - W);
    } else if (n >= 2 * W) {
      _mm512_storeu_si512(p, to_bf16(b.v[0], b.v[1]));
    } else {
      _mm512_mask_storeu_epi16(p, pairs_below(n), to_bf16(b.v[0], b.v[1]));
    }
#endif
  }
}

// f of each vector of blocks.
template <class O, class F, class... B>
GM_INLINE Block<O> each_of(const F& f, const B&... b) {
  Block<O> o;
#pragma GCC unroll 2
  for (int k = 0; k < kVectors<O>; ++k) o.v[k] = f(b.v[k]...);
  return o;
}

template <class O, class T>
GM_INLINE void bput(T* p, const Block<O>& b, int64_t n, bool add) {
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

}  // namespace
}  // namespace gristmill::GM_ISA
