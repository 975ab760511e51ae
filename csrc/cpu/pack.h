// Panels for the matmul micro-kernels: P rows of an operand, k by k, so that the register tile reads straight on.
#pragma once
#include "core/simd.h"

namespace gristmill::GM_ISA {
namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline float widen(float x) { return x; }
inline float widen(uint16_t x) { return bf16_to_f32(x); }
inline uint16_t narrow(float x) { return f32_to_bf16(x); }
inline uint16_t narrow(uint16_t x) { return x; }

// One panel: element (r, k) of src (strides sr, sk) goes to dst[k * P + r]. Rows n..P are zero; `round` passes
// float32 through bfloat16.
template <class T>
void pack_plain(float* dst, const T* src, int64_t sr, int64_t sk, int64_t n, int64_t P, int64_t k0, int64_t kc,
                bool round) {
  for (; k0 < kc; k0 += 16)
    for (int64_t r = 0; r < P; ++r)
      for (int64_t k = k0; k < smaller(k0 + 16, kc); ++k) {
        float x = r < n ? widen(src[r * sr + k * sk]) : 0.0f;
        dst[k * P + r] = round ? bf16_to_f32(f32_to_bf16(x)) : x;
      }
}

// The same in bfloat16, two k side by side as vdpbf16ps takes them; an odd last k is paired with zero.
template <class T>
void pack_pairs_plain(uint16_t* dst, const T* src, int64_t sr, int64_t sk, int64_t n, int64_t P, int64_t k0,
                      int64_t kc) {
  int64_t even = (kc + 1) / 2 * 2;
  for (; k0 < even; k0 += 16)
    for (int64_t r = 0; r < P; ++r)
      for (int64_t k = k0; k < smaller(k0 + 16, even); ++k)
        dst[(k / 2 * P + r) * 2 + k % 2] = r < n && k < kc ? narrow(src[r * sr + k * sk]) : uint16_t{0};
}

#if defined(__AVX512F__)

// 16 x 16 lanes of 32 bits, in place: pairs of rows, then quads, then the 128-bit quarters.
inline void transpose16(__m512i* r) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    __m512i a = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88), b = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    __m512i c = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88), d = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    t[i] = _mm512_shuffle_i32x4(a, c, 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
    t[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
    t[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

inline __mmask16 first(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }

// Sixteen neighbours as float32 bits, or as float32 bits rounded to bfloat16.
inline __m512i lanes(const float* p, __mmask16 m, bool round) {
  __m512i u = _mm512_maskz_loadu_epi32(m, p);
  if (!round) return u;
  uint16_t t[16];
  vstore(t, vf{{_mm512_castsi512_ps(u)}});
  return _mm512_castps_si512(vload(t).r[0]);
}
inline __m512i lanes(const uint16_t* p, __mmask16 m, bool) {
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16);
}

template <class T>
void pack_panel(float* dst, const T* src, int64_t sr, int64_t sk, int64_t n, int64_t P, int64_t kc, bool round) {
  if (sr == 1) {
    for (int64_t k = 0; k < kc; ++k)
      for (int64_t r = 0; r < P; r += 16)
        _mm512_mask_storeu_epi32(dst + k * P + r, first(P - r), lanes(src + k * sk + r, first(n - r), round));
    return;
  }
  if (sk != 1) return pack_plain(dst, src, sr, sk, n, P, 0, kc, round);
  int64_t whole = kc / 16 * 16;
  for (int64_t r0 = 0; r0 < P; r0 += 16)
    for (int64_t k0 = 0; k0 < whole; k0 += 16) {
      __m512i t[16];
      for (int64_t r = 0; r < 16; ++r)
        t[r] = r0 + r < n ? lanes(src + (r0 + r) * sr + k0, 0xffff, round) : _mm512_setzero_si512();
      transpose16(t);
      for (int64_t k = 0; k < 16; ++k) _mm512_mask_storeu_epi32(dst + (k0 + k) * P + r0, first(P - r0), t[k]);
    }
  pack_plain(dst, src, sr, sk, n, P, whole, kc, round);
}

#else

template <class T>
void pack_panel(float* dst, const T* src, int64_t sr, int64_t sk, int64_t n, int64_t P, int64_t kc, bool round) {
  pack_plain(dst, src, sr, sk, n, P, 0, kc, round);
}

#endif

#if defined(__AVX512BF16__)

// Thirty-two neighbours as bfloat16; only this table's own conversion, which flushes denormals as its product does.
inline __m512i halves(const float* p) {
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(p + 16), _mm512_loadu_ps(p));
}
inline __m512i halves(const uint16_t* p) { return _mm512_loadu_si512(p); }

inline __m512i half_lanes(const float* p, __mmask16 m) {
  return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, p)));
}
inline __m512i half_lanes(const uint16_t* p, __mmask16 m) {
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p));
}

template <class T>
void pack_pairs(uint16_t* dst, const T* src, int64_t sr, int64_t sk, int64_t n, int64_t P, int64_t kc) {
  auto at = [&](int64_t pair, int64_t r) { return dst + (pair * P + r) * 2; };
  if (sr == 1) {
    for (int64_t k = 0; k < kc; k += 2)
      for (int64_t r = 0; r < P; r += 16) {
        __mmask16 m = first(n - r);
        __m512i lo = half_lanes(src + k * sk + r, m);
        __m512i hi = k + 1 < kc ? half_lanes(src + (k + 1) * sk + r, m) : _mm512_setzero_si512();
        _mm512_mask_storeu_epi32(at(k / 2, r), first(P - r), _mm512_or_epi32(lo, _mm512_slli_epi32(hi, 16)));
      }
    return;
  }
  if (sk != 1) return pack_pairs_plain(dst, src, sr, sk, n, P, 0, kc);
  int64_t whole = kc / 32 * 32;
  for (int64_t r0 = 0; r0 < P; r0 += 16)
    for (int64_t k0 = 0; k0 < whole; k0 += 32) {
      __m512i t[16];
      for (int64_t r = 0; r < 16; ++r) t[r] = r0 + r < n ? halves(src + (r0 + r) * sr + k0) : _mm512_setzero_si512();
      transpose16(t);
      for (int64_t k = 0; k < 16; ++k) _mm512_mask_storeu_epi32(at(k0 / 2 + k, r0), first(P - r0), t[k]);
    }
  pack_pairs_plain(dst, src, sr, sk, n, P, whole, kc);
}

#endif

}  // namespace
}  // namespace gristmill::GM_ISA
