// Packing by vectors of sixteen lanes with masks.
#pragma once

namespace gristmill::GM_ISA {
namespace {

inline __mmask16 first(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }

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

// Sixteen rows of sixteen lanes as they lie `stride` bytes apart, turned. Quarters are put together while they are
// loaded, which leaves half of the shuffles.
inline void load_turned(__m512i* t, const void* rows, int64_t stride) {
  auto quarter = [=](int64_t row, int q) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const char*>(rows) + row * stride) + q);
  };
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    __m512i x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      x[i] = _mm512_castsi128_si512(quarter(i, q));
      x[i] = _mm512_mask_broadcast_i32x4(x[i], 0x00f0, quarter(i + 4, q));
      x[i] = _mm512_mask_broadcast_i32x4(x[i], 0x0f00, quarter(i + 8, q));
      x[i] = _mm512_mask_broadcast_i32x4(x[i], 0xf000, quarter(i + 12, q));
    }
    __m512i a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpackhi_epi32(x[0], x[1]);
    __m512i c = _mm512_unpacklo_epi32(x[2], x[3]), d = _mm512_unpackhi_epi32(x[2], x[3]);
    t[4 * q] = _mm512_unpacklo_epi64(a, c);
    t[4 * q + 1] = _mm512_unpackhi_epi64(a, c);
    t[4 * q + 2] = _mm512_unpacklo_epi64(b, d);
    t[4 * q + 3] = _mm512_unpackhi_epi64(b, d);
  }
}

// Sixteen neighbours in memory as the bits of float32.
inline __m512i wide(const float* p, __mmask16 m) { return _mm512_maskz_loadu_epi32(m, p); }
inline __m512i wide(const uint16_t* p, __mmask16 m) {
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16);
}
inline __m512i through_bf16(__m512i u) {
  uint16_t t[16];
  vstore(t, vf{{_mm512_castsi512_ps(u)}});
  return _mm512_castps_si512(vload(t).r[0]);
}
#if defined(__AVX512BF16__)
// Sixteen neighbours as bfloat16 in the lower halves; rounded by the instruction whose product flushes denormals too.
inline __m512i half(const float* p, __mmask16 m) {
  return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, p)));
}
inline __m512i half(const uint16_t* p, __mmask16 m) { return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)); }
// Thirty-two neighbours as bfloat16; n of them, the others are zero.
inline __m512i halves(const float* p, int64_t n) {
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(first(n - 16), p + 16), _mm512_maskz_loadu_ps(first(n), p));
}
inline __m512i halves(const uint16_t* p, int64_t n) {
  return _mm512_maskz_loadu_epi16(n >= 32 ? 0xffffffffu : (1u << n) - 1, p);
}
#endif

// One step of 16 rows that lie side by side; and up to 16 steps of one row whose steps do.
template <class T>
inline __m512i across(Plain, const Source<T>& s, int64_t r, int64_t k, __mmask16 m) {
  return wide(s.data + r + k * s.col, m);
}
template <class T>
inline __m512i along(Plain, const Source<T>& s, int64_t r, int64_t k) {
  return wide(s.data + r * s.row + k, first(s.cols - k));
}
template <class T>
inline __m512i across(Rounded, const Source<T>& s, int64_t r, int64_t k, __mmask16 m) {
  return through_bf16(across(Plain{}, s, r, k, m));
}
template <class T>
inline __m512i along(Rounded, const Source<T>& s, int64_t r, int64_t k) {
  return through_bf16(along(Plain{}, s, r, k));
}
#if defined(__AVX512BF16__)
template <class T>
inline __m512i across(Paired, const Source<T>& s, int64_t r, int64_t k, __mmask16 m) {
  const T* p = s.data + r + 2 * k * s.col;
  __m512i low = half(p, m), high = 2 * k + 1 < s.cols ? half(p + s.col, m) : _mm512_setzero_si512();
  return _mm512_or_epi32(low, _mm512_slli_epi32(high, 16));
}
template <class T>
inline __m512i along(Paired, const Source<T>& s, int64_t r, int64_t k) {
  return halves(s.data + r * s.row + 2 * k, s.cols - 2 * k);
}
#endif

constexpr int64_t kFetchRows = 8;  // how far ahead an operand is fetched

// Panels whose rows lie side by side, step by step over all of them: memory is read along its rows.
template <class Step, int P, class T>
void pack_across(float* dst, const Source<T>& s, int64_t r0, int64_t panels, int64_t steps) {
  for (int64_t k = 0; k < steps; ++k)
    for (int64_t p = 0; p < panels; ++p)
      for (int64_t r = 0; r < P; r += 16) {
        int64_t row = r0 + p * P + r;
        __builtin_prefetch(s.data + row + (k * Step::kEach + kFetchRows) * s.col);
        __m512i x = across(Step{}, s, row, k, first(s.rows - row) & first(P - r));
        _mm512_mask_storeu_epi32(dst + (p * steps + k) * P + r, first(P - r), x);
      }
}

// A panel whose steps lie side by side: 16 rows and 16 steps are turned at a time.
template <class Step, int P, class T>
void pack_along(float* dst, const Source<T>& s, int64_t r0, int64_t steps) {
  if (P == 1) {
    for (int64_t k = 0; k < steps; k += 16)
      _mm512_mask_storeu_epi32(dst + k, first(steps - k), along(Step{}, s, r0, k));
    return;
  }
  constexpr int kRows = P < 16 ? P : 16;
  for (int64_t r = 0; r < P; r += 16)
    for (int64_t k = 0; k < steps; k += 16) {
      __m512i t[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        t[i] = i < kRows && r0 + r + i < s.rows ? along(Step{}, s, r0 + r + i, k) : _mm512_setzero_si512();
      transpose16(t);
      float* to = dst + k * P + r;
      if (k + 16 <= steps)
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) _mm512_mask_storeu_epi32(to + i * P, first(P - r), t[i]);
      else
        for (int i = 0; i < steps - k; ++i) _mm512_mask_storeu_epi32(to + i * P, first(P - r), t[i]);
    }
}

// Steps k.. of rows r.., 16 of each, turned: t[step] has the rows. What is beyond the operand is zero.
template <class Step, class T>
inline void turned(__m512i* t, const Source<T>& s, int64_t r, int64_t k) {
  constexpr bool as_stored = Step::kEach * sizeof(T) == 4 && !Step::kRounds;  // a step of a row is 32 bits of memory
  if (as_stored && r + 16 <= s.rows && (k + 16) * Step::kEach <= s.cols)
    return load_turned(t, s.data + r * s.row + k * Step::kEach, s.row * static_cast<int64_t>(sizeof(T)));
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) t[i] = r + i < s.rows ? along(Step{}, s, r + i, k) : _mm512_setzero_si512();
  transpose16(t);
}

// `panels` panels of P rows from row r0, one after the other.
template <class Step, int P, class T>
void pack_panels(float* dst, const Source<T>& s, int64_t r0, int64_t panels, int64_t steps) {
  if (s.row == 1) return pack_across<Step, P>(dst, s, r0, panels, steps);
  for (int64_t p = 0; p < panels; ++p, dst += steps * P, r0 += P)
    s.col == 1 ? pack_along<Step, P>(dst, s, r0, steps) : pack_slowly<Step, P>(dst, s, r0, 0, steps);
}

}  // namespace
}  // namespace gristmill::GM_ISA
