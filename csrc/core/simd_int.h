// Sixteen 32-bit words beside the sixteen floats of simd.h: random numbers, and the bits of floats.
#pragma once
#include "core/simd.h"

namespace gristmill::GM_ISA {

#if defined(__AVX512F__)
using native_u = __m512i;
inline native_u u_load(const uint32_t* p) { return _mm512_loadu_si512(p); }
inline void u_store(uint32_t* p, native_u v) { _mm512_storeu_si512(p, v); }
inline native_u u_set(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
inline native_u u_add(native_u a, native_u b) { return _mm512_add_epi32(a, b); }
inline native_u u_sub(native_u a, native_u b) { return _mm512_sub_epi32(a, b); }
inline native_u u_and(native_u a, native_u b) { return _mm512_and_si512(a, b); }
inline native_u u_or(native_u a, native_u b) { return _mm512_or_si512(a, b); }
inline native_u u_xor(native_u a, native_u b) { return _mm512_xor_si512(a, b); }
template <int n>
inline native_u u_shl(native_u a) {
  return _mm512_slli_epi32(a, n);
}
template <int n>
inline native_u u_shr(native_u a) {
  return _mm512_srli_epi32(a, n);
}
template <int n>
inline native_u u_sar(native_u a) {
  return _mm512_srai_epi32(a, n);
}
inline native u_signed(native_u a) { return _mm512_cvtepi32_ps(a); }
inline native u_unsigned(native_u a) { return _mm512_cvtepu32_ps(a); }
inline native_u n_bits(native a) { return _mm512_castps_si512(a); }
inline native u_float(native_u a) { return _mm512_castsi512_ps(a); }
#elif defined(__AVX2__)
using native_u = __m256i;
inline native_u u_load(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline void u_store(uint32_t* p, native_u v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
inline native_u u_set(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
inline native_u u_add(native_u a, native_u b) { return _mm256_add_epi32(a, b); }
inline native_u u_sub(native_u a, native_u b) { return _mm256_sub_epi32(a, b); }
inline native_u u_and(native_u a, native_u b) { return _mm256_and_si256(a, b); }
inline native_u u_or(native_u a, native_u b) { return _mm256_or_si256(a, b); }
inline native_u u_xor(native_u a, native_u b) { return _mm256_xor_si256(a, b); }
template <int n>
inline native_u u_shl(native_u a) {
  return _mm256_slli_epi32(a, n);
}
template <int n>
inline native_u u_shr(native_u a) {
  return _mm256_srli_epi32(a, n);
}
template <int n>
inline native_u u_sar(native_u a) {
  return _mm256_srai_epi32(a, n);
}
inline native u_signed(native_u a) { return _mm256_cvtepi32_ps(a); }
inline native u_unsigned(native_u a) {  // both halves are exact, so the fma rounds once
  native high = u_signed(u_shr<16>(a)), low = u_signed(u_and(a, u_set(0xffff)));
  return n_fma(high, n_set(65536.0f), low);
}
inline native_u n_bits(native a) { return _mm256_castps_si256(a); }
inline native u_float(native_u a) { return _mm256_castsi256_ps(a); }
#elif defined(__ARM_NEON) && !defined(GM_SCALAR)
using native_u = uint32x4_t;
inline native_u u_load(const uint32_t* p) { return vld1q_u32(p); }
inline void u_store(uint32_t* p, native_u v) { vst1q_u32(p, v); }
inline native_u u_set(uint32_t x) { return vdupq_n_u32(x); }
inline native_u u_add(native_u a, native_u b) { return vaddq_u32(a, b); }
inline native_u u_sub(native_u a, native_u b) { return vsubq_u32(a, b); }
inline native_u u_and(native_u a, native_u b) { return vandq_u32(a, b); }
inline native_u u_or(native_u a, native_u b) { return vorrq_u32(a, b); }
inline native_u u_xor(native_u a, native_u b) { return veorq_u32(a, b); }
template <int n>
inline native_u u_shl(native_u a) {
  return vshlq_n_u32(a, n);
}
template <int n>
inline native_u u_shr(native_u a) {
  return vshrq_n_u32(a, n);
}
template <int n>
inline native_u u_sar(native_u a) {
  return vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_u32(a), n));
}
inline native u_signed(native_u a) { return vcvtq_f32_s32(vreinterpretq_s32_u32(a)); }
inline native u_unsigned(native_u a) { return vcvtq_f32_u32(a); }
inline native_u n_bits(native a) { return vreinterpretq_u32_f32(a); }
inline native u_float(native_u a) { return vreinterpretq_f32_u32(a); }
#else
using native_u = uint32_t;
inline native_u u_load(const uint32_t* p) { return *p; }
inline void u_store(uint32_t* p, native_u v) { *p = v; }
inline native_u u_set(uint32_t x) { return x; }
inline native_u u_add(native_u a, native_u b) { return a + b; }
inline native_u u_sub(native_u a, native_u b) { return a - b; }
inline native_u u_and(native_u a, native_u b) { return a & b; }
inline native_u u_or(native_u a, native_u b) { return a | b; }
inline native_u u_xor(native_u a, native_u b) { return a ^ b; }
template <int n>
inline native_u u_shl(native_u a) {
  return a << n;
}
template <int n>
inline native_u u_shr(native_u a) {
  return a >> n;
}
template <int n>
inline native_u u_sar(native_u a) {
  return static_cast<uint32_t>(static_cast<int32_t>(a) >> n);
}
inline native u_signed(native_u a) { return static_cast<float>(static_cast<int32_t>(a)); }
inline native u_unsigned(native_u a) { return static_cast<float>(a); }
inline native_u n_bits(native a) {
  uint32_t u;
  std::memcpy(&u, &a, 4);
  return u;
}
inline native u_float(native_u a) {
  float f;
  std::memcpy(&f, &a, 4);
  return f;
}
#endif

struct vu {
  native_u r[kRegisters];
};

#define GM_LANEWISE(type, name, params, expression)           \
  inline type name params {                                   \
    type o;                                                   \
    for (int i = 0; i < kRegisters; ++i) o.r[i] = expression; \
    return o;                                                 \
  }
GM_LANEWISE(vu, vuset, (uint32_t x), u_set(x))
GM_LANEWISE(vu, vuload, (const uint32_t* p), u_load(p + i * kNativeLanes))
GM_LANEWISE(vu, operator+, (vu a, vu b), u_add(a.r[i], b.r[i]))
GM_LANEWISE(vu, operator-, (vu a, vu b), u_sub(a.r[i], b.r[i]))
GM_LANEWISE(vu, operator&, (vu a, vu b), u_and(a.r[i], b.r[i]))
GM_LANEWISE(vu, operator|, (vu a, vu b), u_or(a.r[i], b.r[i]))
GM_LANEWISE(vu, operator^, (vu a, vu b), u_xor(a.r[i], b.r[i]))
template <int n>
GM_LANEWISE(vu, vshl, (vu a), u_shl<n>(a.r[i]))
template <int n>
GM_LANEWISE(vu, vshr, (vu a), u_shr<n>(a.r[i]))
template <int n>
GM_LANEWISE(vu, vsar, (vu a), u_sar<n>(a.r[i]))             // the sign fills from the left
GM_LANEWISE(vf, vsigned, (vu a), u_signed(a.r[i]))          // int32 to nearest float
    GM_LANEWISE(vf, vunsigned, (vu a), u_unsigned(a.r[i]))  // uint32 to nearest float
    GM_LANEWISE(vu, vbits, (vf a), n_bits(a.r[i])) GM_LANEWISE(vf, vfloat, (vu a), u_float(a.r[i]))
#undef GM_LANEWISE

    // The upper halves, which of a float are a bfloat16 cut off.
    inline void vstore_upper(uint16_t* p, vu v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(u_shr<16>(v.r[0])));
#elif defined(__AVX2__)
  __m256i both = _mm256_packus_epi32(u_shr<16>(v.r[0]), u_shr<16>(v.r[1]));  // quarters 0 2 1 3
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(both, 0xd8));
#else
  uint32_t t[W];
  for (int i = 0; i < kRegisters; ++i) u_store(t + i * kNativeLanes, v.r[i]);
  for (int i = 0; i < W; ++i) p[i] = static_cast<uint16_t>(t[i] >> 16);
#endif
}

inline void vstore_upper_n(uint16_t* p, vu v, int64_t n) {
  if (n >= W) return vstore_upper(p, v);
  uint16_t t[W];
  vstore_upper(t, v);
  for (int64_t i = 0; i < n; ++i) p[i] = t[i];
}

}  // namespace gristmill::GM_ISA
