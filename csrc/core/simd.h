// Sixteen float32 lanes on every instruction set: one zmm, two ymm, four NEON quads or sixteen floats. Horizontal sums
// use these lanes and one fixed tree, which is why the same kernel source gives the same bits on every table.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/types.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// A vector handed to a function that is not inlined travels through memory: 136 instead of 18 cycles for an exp on
// AVX2.
#define GM_INLINE __attribute__((always_inline)) inline

namespace gristmill::GM_ISA {

constexpr int32_t kRootHalf = 0x3f3504f3;  // the bits of sqrt(1/2)

// The native register, kept to the few operations that differ.
#if defined(__AVX512F__)
using native = __m512;
constexpr int kNativeLanes = 16;
GM_INLINE native n_load(const float* p) { return _mm512_loadu_ps(p); }
GM_INLINE void n_store(float* p, native v) { _mm512_storeu_ps(p, v); }
GM_INLINE native n_set(float x) { return _mm512_set1_ps(x); }
GM_INLINE native n_add(native a, native b) { return _mm512_add_ps(a, b); }
GM_INLINE native n_sub(native a, native b) { return _mm512_sub_ps(a, b); }
GM_INLINE native n_mul(native a, native b) { return _mm512_mul_ps(a, b); }
GM_INLINE native n_div(native a, native b) { return _mm512_div_ps(a, b); }
GM_INLINE native n_fma(native a, native b, native c) { return _mm512_fmadd_ps(a, b, c); }
GM_INLINE native n_max(native a, native b) { return _mm512_max_ps(a, b); }
GM_INLINE native n_min(native a, native b) { return _mm512_min_ps(a, b); }
GM_INLINE native n_sqrt(native a) { return _mm512_sqrt_ps(a); }
GM_INLINE native n_select_gt(native a, native b, native x, native y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}
GM_INLINE native n_abs(native a) { return _mm512_abs_ps(a); }
GM_INLINE native n_sign(native a, native b) { return _mm512_or_ps(a, _mm512_and_ps(b, _mm512_set1_ps(-0.0f))); }
GM_INLINE native n_split(native x, native* e) {
  __m512i shifted = _mm512_sub_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(kRootHalf));
  *e = _mm512_cvtepi32_ps(_mm512_srai_epi32(shifted, 23));
  shifted = _mm512_and_si512(shifted, _mm512_set1_epi32(0x7fffff));
  return _mm512_castsi512_ps(_mm512_add_epi32(shifted, _mm512_set1_epi32(kRootHalf)));
}
// p 2^n for integral n, rounded once.
GM_INLINE native n_scale(native p, native n) { return _mm512_scalef_ps(p, n); }
#elif defined(__AVX2__)
using native = __m256;
constexpr int kNativeLanes = 8;
GM_INLINE native n_load(const float* p) { return _mm256_loadu_ps(p); }
GM_INLINE void n_store(float* p, native v) { _mm256_storeu_ps(p, v); }
GM_INLINE native n_set(float x) { return _mm256_set1_ps(x); }
GM_INLINE native n_add(native a, native b) { return _mm256_add_ps(a, b); }
GM_INLINE native n_sub(native a, native b) { return _mm256_sub_ps(a, b); }
GM_INLINE native n_mul(native a, native b) { return _mm256_mul_ps(a, b); }
GM_INLINE native n_div(native a, native b) { return _mm256_div_ps(a, b); }
GM_INLINE native n_fma(native a, native b, native c) { return _mm256_fmadd_ps(a, b, c); }
GM_INLINE native n_max(native a, native b) { return _mm256_max_ps(a, b); }
GM_INLINE native n_min(native a, native b) { return _mm256_min_ps(a, b); }
GM_INLINE native n_sqrt(native a) { return _mm256_sqrt_ps(a); }
GM_INLINE native n_select_gt(native a, native b, native x, native y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
GM_INLINE native n_abs(native a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
GM_INLINE native n_sign(native a, native b) { return _mm256_or_ps(a, _mm256_and_ps(b, _mm256_set1_ps(-0.0f))); }
GM_INLINE native n_split(native x, native* e) {
  __m256i shifted = _mm256_sub_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(kRootHalf));
  *e = _mm256_cvtepi32_ps(_mm256_srai_epi32(shifted, 23));
  shifted = _mm256_and_si256(shifted, _mm256_set1_epi32(0x7fffff));
  return _mm256_castsi256_ps(_mm256_add_epi32(shifted, _mm256_set1_epi32(kRootHalf)));
}
GM_INLINE native n_pow2(native shifted) {
  __m256i u = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(u, _mm256_set1_epi32(0x3f800000)));
}
#elif defined(__ARM_NEON) && !defined(GM_SCALAR)
using native = float32x4_t;
constexpr int kNativeLanes = 4;
GM_INLINE native n_load(const float* p) { return vld1q_f32(p); }
GM_INLINE void n_store(float* p, native v) { vst1q_f32(p, v); }
GM_INLINE native n_set(float x) { return vdupq_n_f32(x); }
GM_INLINE native n_add(native a, native b) { return vaddq_f32(a, b); }
GM_INLINE native n_sub(native a, native b) { return vsubq_f32(a, b); }
GM_INLINE native n_mul(native a, native b) { return vmulq_f32(a, b); }
GM_INLINE native n_div(native a, native b) { return vdivq_f32(a, b); }
GM_INLINE native n_fma(native a, native b, native c) { return vfmaq_f32(c, a, b); }
GM_INLINE native n_select_gt(native a, native b, native x, native y) { return vbslq_f32(vcgtq_f32(a, b), x, y); }
GM_INLINE native n_max(native a, native b) { return n_select_gt(a, b, a, b); }  // NaN as on x86: the second operand
GM_INLINE native n_min(native a, native b) { return n_select_gt(b, a, a, b); }
GM_INLINE native n_sqrt(native a) { return vsqrtq_f32(a); }
GM_INLINE native n_abs(native a) { return vabsq_f32(a); }
GM_INLINE native n_sign(native a, native b) { return vbslq_f32(vdupq_n_u32(0x80000000u), b, a); }
GM_INLINE native n_split(native x, native* e) {
  int32x4_t root = vdupq_n_s32(kRootHalf), shifted = vsubq_s32(vreinterpretq_s32_f32(x), root);
  *e = vcvtq_f32_s32(vshrq_n_s32(shifted, 23));
  return vreinterpretq_f32_s32(vaddq_s32(vandq_s32(shifted, vdupq_n_s32(0x7fffff)), root));
}
GM_INLINE native n_pow2(native shifted) {
  uint32x4_t u = vshlq_n_u32(vreinterpretq_u32_f32(shifted), 23);
  return vreinterpretq_f32_u32(vaddq_u32(u, vdupq_n_u32(0x3f800000)));
}
#else
using native = float;
constexpr int kNativeLanes = 1;
GM_INLINE native n_load(const float* p) { return *p; }
GM_INLINE void n_store(float* p, native v) { *p = v; }
GM_INLINE native n_set(float x) { return x; }
GM_INLINE native n_add(native a, native b) { return a + b; }
GM_INLINE native n_sub(native a, native b) { return a - b; }
GM_INLINE native n_mul(native a, native b) { return a * b; }
GM_INLINE native n_div(native a, native b) { return a / b; }
GM_INLINE native n_fma(native a, native b, native c) { return __builtin_fmaf(a, b, c); }
GM_INLINE native n_max(native a, native b) { return a > b ? a : b; }
GM_INLINE native n_min(native a, native b) { return a < b ? a : b; }
GM_INLINE native n_sqrt(native a) { return __builtin_sqrtf(a); }
GM_INLINE native n_select_gt(native a, native b, native x, native y) { return a > b ? x : y; }
GM_INLINE native n_abs(native a) { return __builtin_fabsf(a); }
GM_INLINE native n_sign(native a, native b) { return __builtin_copysignf(a, b); }
GM_INLINE native n_split(native x, native* e) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  u -= kRootHalf;
  *e = static_cast<float>(static_cast<int32_t>(u) >> 23);
  u = (u & 0x7fffffu) + kRootHalf;
  std::memcpy(&x, &u, 4);
  return x;
}
GM_INLINE native n_pow2(native shifted) {
  uint32_t u;
  std::memcpy(&u, &shifted, 4);
  u = (u << 23) + 0x3f800000u;
  std::memcpy(&shifted, &u, 4);
  return shifted;
}
#endif

constexpr float kMagic = 12582912.0f;  // 1.5 2^23: adding it rounds to an integer, which the low bits then hold

#if !defined(__AVX512F__)
// In two factors, of which only the last rounds: n_pow2(kMagic + k) is 2^k for k from -126 to 127 alone.
GM_INLINE native n_scale(native p, native n) {
  native half = n_fma(n, n_set(0.5f), n_set(kMagic)), rest = n_sub(n, n_sub(half, n_set(kMagic)));
  return n_mul(n_mul(p, n_pow2(half)), n_pow2(n_add(rest, n_set(kMagic))));
}
#endif

constexpr int W = 16;
constexpr int kRegisters = W / kNativeLanes;

struct vf {
  native r[kRegisters];
};

#define GM_LANEWISE(name, params, expression)                 \
  GM_INLINE vf name params {                                  \
    vf o;                                                     \
    for (int i = 0; i < kRegisters; ++i) o.r[i] = expression; \
    return o;                                                 \
  }
GM_LANEWISE(vset, (float x), n_set(x))
GM_LANEWISE(operator+, (vf a, vf b), n_add(a.r[i], b.r[i]))
GM_LANEWISE(operator-, (vf a, vf b), n_sub(a.r[i], b.r[i]))
GM_LANEWISE(operator*, (vf a, vf b), n_mul(a.r[i], b.r[i]))
GM_LANEWISE(operator/, (vf a, vf b), n_div(a.r[i], b.r[i]))
GM_LANEWISE(vfma, (vf a, vf b, vf c), n_fma(a.r[i], b.r[i], c.r[i]))
GM_LANEWISE(vmax, (vf a, vf b), n_max(a.r[i], b.r[i]))
GM_LANEWISE(vmin, (vf a, vf b), n_min(a.r[i], b.r[i]))
GM_LANEWISE(vsqrt, (vf a), n_sqrt(a.r[i]))
GM_LANEWISE(vabs, (vf a), n_abs(a.r[i]))
GM_LANEWISE(vsign, (vf a, vf b), n_sign(a.r[i], b.r[i]))    // a >= 0 with the sign of b
GM_LANEWISE(vscale, (vf p, vf n), n_scale(p.r[i], n.r[i]))  // p 2^n for integral n of -250 to 250
GM_LANEWISE(vselect_gt, (vf a, vf b, vf x, vf y), n_select_gt(a.r[i], b.r[i], x.r[i], y.r[i]))
GM_LANEWISE(vload, (const float* p), n_load(p + i * kNativeLanes))
#undef GM_LANEWISE

// x = m 2^e with m from sqrt(1/2) to sqrt(2), for normal x > 0.
GM_INLINE vf vsplit(vf x, vf* e) {
  vf m;
  for (int i = 0; i < kRegisters; ++i) m.r[i] = n_split(x.r[i], &e->r[i]);
  return m;
}

GM_INLINE vf vzero() { return vset(0.0f); }
GM_INLINE vf operator-(vf a) { return vset(-0.0f) - a; }
GM_INLINE float sfma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

GM_INLINE void vstore(float* p, vf v) {
  for (int i = 0; i < kRegisters; ++i) n_store(p + i * kNativeLanes, v.r[i]);
}

#if defined(__AVX512F__)
GM_INLINE __mmask16 lanes_below(int64_t n) { return static_cast<__mmask16>((1u << (n < W ? n : W)) - 1); }
#elif defined(__AVX2__)
GM_INLINE __m256i lanes_below(int64_t n) {  // n may be negative
  __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(n)), lane);
}
#endif

// The first n elements, 0 in the lanes past them.
GM_INLINE vf vload_n(const float* p, int64_t n) {
  if (n >= W) return vload(p);
#if defined(__AVX512F__)
  return vf{{_mm512_maskz_loadu_ps(lanes_below(n), p)}};
#elif defined(__AVX2__)
  return vf{{_mm256_maskload_ps(p, lanes_below(n)), _mm256_maskload_ps(p + 8, lanes_below(n - 8))}};
#else
  float t[W] = {};
  for (int64_t i = 0; i < n; ++i) t[i] = p[i];
  return vload(t);
#endif
}

GM_INLINE void vstore_n(float* p, vf v, int64_t n) {
  if (n >= W) return vstore(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, lanes_below(n), v.r[0]);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, lanes_below(n), v.r[0]);
  _mm256_maskstore_ps(p + 8, lanes_below(n - 8), v.r[1]);
#else
  float t[W];
  vstore(t, v);
  for (int64_t i = 0; i < n; ++i) p[i] = t[i];
#endif
}

// v in the first n lanes, `rest` in the others.
GM_INLINE vf vfirst(vf v, int64_t n, float rest) {
  if (n >= W) return v;
#if defined(__AVX512F__)
  return vf{{_mm512_mask_blend_ps(lanes_below(n), _mm512_set1_ps(rest), v.r[0])}};
#else
  float t[W];
  vstore(t, v);
  for (int64_t i = n; i < W; ++i) t[i] = rest;
  return vload(t);
#endif
}

// bfloat16 lives in memory only.
#if defined(__AVX512F__)
GM_INLINE __m512 bf16_lanes(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }

GM_INLINE __m256i to_bf16(__m512 v) {
#if defined(__AVX512BF16__)
  if (!_mm512_fpclass_ps_mask(v, 0x20)) [[likely]]  // the instruction flushes denormals
    return (__m256i)_mm512_cvtneps_pbh(v);
#endif
  __m512i u = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
}

GM_INLINE vf vload(const uint16_t* p) {
  return vf{{bf16_lanes(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}};
}
GM_INLINE vf vload_n(const uint16_t* p, int64_t n) {
  return n >= W ? vload(p) : vf{{bf16_lanes(_mm256_maskz_loadu_epi16(lanes_below(n), p))}};
}
GM_INLINE void vstore(uint16_t* p, vf v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(v.r[0])); }
GM_INLINE void vstore_n(uint16_t* p, vf v, int64_t n) {
  if (n >= W) return vstore(p, v);
  _mm256_mask_storeu_epi16(p, lanes_below(n), to_bf16(v.r[0]));
}

#else

#if defined(__AVX2__)
GM_INLINE vf vload(const uint16_t* p) {
  auto half = [](const uint16_t* q) {
    __m256i u = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(u, 16));
  };
  return vf{{half(p), half(p + 8)}};
}

GM_INLINE void vstore(uint16_t* p, vf v) {
  auto half = [](__m256 x) {
    __m256i u = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    r = _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
    return _mm256_srli_epi32(r, 16);
  };
  __m256i both = _mm256_packus_epi32(half(v.r[0]), half(v.r[1]));  // quarters 0 2 1 3
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(both, 0xd8));
}
#else
GM_INLINE vf vload(const uint16_t* p) {
  float t[W];
  for (int i = 0; i < W; ++i) t[i] = bf16_to_f32(p[i]);
  return vload(t);
}

GM_INLINE void vstore(uint16_t* p, vf v) {
  float t[W];
  vstore(t, v);
  for (int i = 0; i < W; ++i) p[i] = f32_to_bf16(t[i]);
}
#endif

GM_INLINE vf vload_n(const uint16_t* p, int64_t n) {
  if (n >= W) return vload(p);
  uint16_t t[W] = {};
  for (int64_t i = 0; i < n; ++i) t[i] = p[i];
  return vload(t);
}

GM_INLINE void vstore_n(uint16_t* p, vf v, int64_t n) {
  if (n >= W) return vstore(p, v);
  uint16_t t[W];
  vstore(t, v);
  for (int64_t i = 0; i < n; ++i) p[i] = t[i];
}
#endif

// The one tree: lanes 8 apart, then 4, 2, 1.
#if defined(__AVX2__)
template <class F>
GM_INLINE float fold(vf v, F f) {
#if defined(__AVX512F__)
  __m512 x = v.r[0];  // masked, as g++ 12 warns of the plain ones' undefined lanes
  __m256 a = f(_mm512_maskz_extractf32x8_ps(0xff, x, 0), _mm512_maskz_extractf32x8_ps(0xff, x, 1));
#else
  __m256 a = f(v.r[0], v.r[1]);
#endif
  a = f(a, _mm256_castps128_ps256(_mm256_extractf128_ps(a, 1)));
  a = f(a, _mm256_permute_ps(a, 0x0e));
  return _mm256_cvtss_f32(f(a, _mm256_permute_ps(a, 1)));
}
GM_INLINE float vsum(vf v) {
  return fold(v, [](__m256 a, __m256 b) { return _mm256_add_ps(a, b); });
}
GM_INLINE float vhmax(vf v) {
  return fold(v, [](__m256 a, __m256 b) { return _mm256_max_ps(a, b); });
}
#else
template <class F>
GM_INLINE float fold(vf v, F f) {
  float t[W];
  vstore(t, v);
  for (int half = W / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) t[i] = f(t[i], t[i + half]);
  return t[0];
}
GM_INLINE float vsum(vf v) {
  return fold(v, [](float a, float b) { return a + b; });
}
GM_INLINE float vhmax(vf v) {
  return fold(v, [](float a, float b) { return a > b ? a : b; });
}
#endif

}  // namespace gristmill::GM_ISA
