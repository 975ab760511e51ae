// Packing without masks: by vectors of eight lanes, or element by element.
#pragma once

namespace gristmill::GM_ISA {
namespace {

#if defined(__AVX2__)

// The first N of eight lanes. A masked store takes as long as ten others (Zen 4).
template <int N>
inline void store_first(float* to, __m256 x) {
  if constexpr (N >= 8) return _mm256_storeu_ps(to, x);
  if constexpr (N == 1) return _mm_store_ss(to, _mm256_castps256_ps128(x));
  _mm_storeu_ps(to, _mm256_castps256_ps128(x));
  if constexpr (N == 6) _mm_storel_pi(reinterpret_cast<__m64*>(to + 4), _mm256_extractf128_ps(x, 1));
}
template <int P>
inline void store_step(float* to, vf x) {
  store_first<P>(to, x.r[0]);
  if constexpr (P > 8) store_first<P - 8>(to + 8, x.r[1]);
}

#else

template <int P>
inline void store_step(float* to, vf x) {
  vstore_n(to, x, P);
}

#endif

// Panels whose rows lie side by side, step by step over all of them.
template <class Step, int P, class T>
void pack_across(float* dst, const Source<T>& s, int64_t r0, int64_t panels, int64_t steps) {
  for (int64_t k = 0; k < steps; ++k)
    for (int64_t p = 0; p < panels; ++p) {
      int64_t row = r0 + p * P, n = smaller(P, s.rows - row);
      store_step<P>(dst + (p * steps + k) * P, vload_n(s.data + row + k * s.col, n));
    }
}

#if defined(__AVX2__)

inline __m256 eight(const float* p) { return _mm256_loadu_ps(p); }
inline __m256 eight(const uint16_t* p) {
  __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

// 8 x 8 lanes, in place: pairs of rows, then quads, then the halves.
inline void transpose8(__m256* r) {
  __m256 t[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  __m256 q[8];
  for (int h = 0; h < 8; h += 4)
    for (int i = 0; i < 2; ++i) {
      q[h + 2 * i] = _mm256_shuffle_ps(t[h + i], t[h + 2 + i], 0x44);
      q[h + 2 * i + 1] = _mm256_shuffle_ps(t[h + i], t[h + 2 + i], 0xee);
    }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(q[i], q[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(q[i], q[i + 4], 0x31);
  }
}

// A panel whose steps lie side by side: 8 rows and 8 steps are turned at a time.
template <class Step, int P, class T>
void pack_along(float* dst, const Source<T>& s, int64_t r0, int64_t steps) {
  int64_t whole = steps / 8 * 8;
  for (int64_t r = 0; r < P; r += 8)
    for (int64_t k = 0; k < whole; k += 8) {
      __m256 t[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i)
        t[i] = r + i < P && r0 + r + i < s.rows ? eight(s.data + (r0 + r + i) * s.row + k) : _mm256_setzero_ps();
      transpose8(t);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) store_first < P<8 ? P : 8>(dst + (k + i) * P + r, t[i]);
    }
  pack_slowly<Step, P>(dst, s, r0, whole, steps);
}

#else

template <class Step, int P, class T>
void pack_along(float* dst, const Source<T>& s, int64_t r0, int64_t steps) {
  pack_slowly<Step, P>(dst, s, r0, 0, steps);
}

#endif

template <class Step, int P, class T>
void pack_panels(float* dst, const Source<T>& s, int64_t r0, int64_t panels, int64_t steps) {
  if (s.row == 1 && !Step::kRounds) return pack_across<Step, P>(dst, s, r0, panels, steps);
  for (int64_t p = 0; p < panels; ++p, dst += steps * P, r0 += P)
    s.col == 1 && !Step::kRounds ? pack_along<Step, P>(dst, s, r0, steps) : pack_slowly<Step, P>(dst, s, r0, 0, steps);
}

}  // namespace
}  // namespace gristmill::GM_ISA
