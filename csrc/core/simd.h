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

namespace gristmill::GM_ISA {

// The native register, kept to the few operations that differ.
#if defined(__AVX512F__)
using native = __m512;
constexpr int kNativeLanes = 16;
inline native n_load(const float* p) { return _mm512_loadu_ps(p); }
inline void n_store(float* p, native v) { _mm512_storeu_ps(p, v); }
inline native n_set(float x) { return _mm512_set1_ps(x); }
inline native n_add(native a, native b) { return _mm512_add_ps(a, b); }
inline native n_sub(native a, native b) { return _mm512_sub_ps(a, b); }
inline native n_mul(native a, native b) { return _mm512_mul_ps(a, b); }
inline native n_div(native a, native b) { return _mm512_div_ps(a, b); }
inline native n_fma(native a, native b, native c) { return _mm512_fmadd_ps(a, b, c); }
inline native n_max(native a, native b) { return _mm512_max_ps(a, b); }
inline native n_min(native a, native b) { return _mm512_min_ps(a, b); }
inline native n_sqrt(native a) { return _mm512_sqrt_ps(a); }
inline native n_select_gt(native a, native b, native x, native y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}
#elif defined(__AVX2__)
using native = __m256;
constexpr int kNativeLanes = 8;
inline native n_load(const float* p) { return _mm256_loadu_ps(p); }
inline void n_store(float* p, native v) { _mm256_storeu_ps(p, v); }
inline native n_set(float x) { return _mm256_set1_ps(x); }
inline native n_add(native a, native b) { return _mm256_add_ps(a, b); }
inline native n_sub(native a, native b) { return _mm256_sub_ps(a, b); }
inline native n_mul(native a, native b) { return _mm256_mul_ps(a, b); }
inline native n_div(native a, native b) { return _mm256_div_ps(a, b); }
inline native n_fma(native a, native b, native c) { return _mm256_fmadd_ps(a, b, c); }
inline native n_max(native a, native b) { return _mm256_max_ps(a, b); }
inline native n_min(native a, native b) { return _mm256_min_ps(a, b); }
inline native n_sqrt(native a) { return _mm256_sqrt_ps(a); }
inline native n_select_gt(native a, native b, native x, native y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
#elif defined(__ARM_NEON) && !defined(GM_SCALAR)
using native = float32x4_t;
constexpr int kNativeLanes = 4;
inline native n_load(const float* p) { return vld1q_f32(p); }
inline void n_store(float* p, native v) { vst1q_f32(p, v); }
inline native n_set(float x) { return vdupq_n_f32(x); }
inline native n_add(native a, native b) { return vaddq_f32(a, b); }
inline native n_sub(native a, native b) { return vsubq_f32(a, b); }
inline native n_mul(native a, native b) { return vmulq_f32(a, b); }
inline native n_div(native a, native b) { return vdivq_f32(a, b); }
inline native n_fma(native a, native b, native c) { return vfmaq_f32(c, a, b); }
inline native n_select_gt(native a, native b, native x, native y) { return vbslq_f32(vcgtq_f32(a, b), x, y); }
inline native n_max(native a, native b) { return n_select_gt(a, b, a, b); }  // NaN as on x86: the second operand
inline native n_min(native a, native b) { return n_select_gt(b, a, a, b); }
inline native n_sqrt(native a) { return vsqrtq_f32(a); }
#else
using native = float;
constexpr int kNativeLanes = 1;
inline native n_load(const float* p) { return *p; }
inline void n_store(float* p, native v) { *p = v; }
inline native n_set(float x) { return x; }
inline native n_add(native a, native b) { return a + b; }
inline native n_sub(native a, native b) { return a - b; }
inline native n_mul(native a, native b) { return a * b; }
inline native n_div(native a, native b) { return a / b; }
inline native n_fma(native a, native b, native c) { return __builtin_fmaf(a, b, c); }
inline native n_max(native a, native b) { return a > b ? a : b; }
inline native n_min(native a, native b) { return a < b ? a : b; }
inline native n_sqrt(native a) { return __builtin_sqrtf(a); }
inline native n_select_gt(native a, native b, native x, native y) { return a > b ? x : y; }
#endif

constexpr int W = 16;
constexpr int kRegisters = W / kNativeLanes;

struct vf {
  native r[kRegisters];
};

#define GM_LANEWISE(name, params, expression)                 \
  inline vf name params {                                     \
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
GM_LANEWISE(vselect_gt, (vf a, vf b, vf x, vf y), n_select_gt(a.r[i], b.r[i], x.r[i], y.r[i]))
GM_LANEWISE(vload, (const float* p), n_load(p + i * kNativeLanes))
#undef GM_LANEWISE

inline vf vzero() { return vset(0.0f); }
inline vf operator-(vf a) { return vset(-0.0f) - a; }
inline vf vabs(vf a) { return vmax(a, -a); }
inline float sfma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

inline void vstore(float* p, vf v) {
  for (int i = 0; i < kRegisters; ++i) n_store(p + i * kNativeLanes, v.r[i]);
}

inline vf vload_n(const float* p, int64_t n) {
  if (n >= W) return vload(p);
  float t[W] = {};
  for (int64_t i = 0; i < n; ++i) t[i] = p[i];
  return vload(t);
}

inline void vstore_n(float* p, vf v, int64_t n) {
  if (n >= W) return vstore(p, v);
  float t[W];
  vstore(t, v);
  for (int64_t i = 0; i < n; ++i) p[i] = t[i];
}

// bfloat16 lives in memory only. Rounding by integer arithmetic: the conversion instructions flush denormals.
inline vf vload(const uint16_t* p) {
#if defined(__AVX512F__)
  __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return vf{{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))}};
#else
  float t[W];
  for (int i = 0; i < W; ++i) t[i] = bf16_to_f32(p[i]);
  return vload(t);
#endif
}

inline void vstore(uint16_t* p, vf v) {
#if defined(__AVX512F__)
  __m512i u = _mm512_castps_si512(v.r[0]);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  __mmask16 nan = _mm512_cmp_ps_mask(v.r[0], v.r[0], _CMP_UNORD_Q);
  rounded = _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
#else
  float t[W];
  vstore(t, v);
  for (int i = 0; i < W; ++i) p[i] = f32_to_bf16(t[i]);
#endif
}

inline vf vload_n(const uint16_t* p, int64_t n) {
  if (n >= W) return vload(p);
  uint16_t t[W] = {};
  for (int64_t i = 0; i < n; ++i) t[i] = p[i];
  return vload(t);
}

inline void vstore_n(uint16_t* p, vf v, int64_t n) {
  if (n >= W) return vstore(p, v);
  uint16_t t[W];
  vstore(t, v);
  for (int64_t i = 0; i < n; ++i) p[i] = t[i];
}

// The one tree: lanes 8 apart, then 4, 2, 1.
inline float vsum(vf v) {
  float t[W];
  vstore(t, v);
  for (int half = W / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) t[i] += t[i + half];
  return t[0];
}

inline float vhmax(vf v) {
  float t[W];
  vstore(t, v);
  for (int half = W / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) t[i] = t[i] > t[i + half] ? t[i] : t[i + half];
  return t[0];
}

}  // namespace gristmill::GM_ISA
