// Panels for the register tile of matmul: P rows of an operand, step by step of k, so that the tile reads straight on.
// One step is 32 bits a row: a float32 (bfloat16 is widened), or two bfloat16 that follow each other in k.
#pragma once
#include "core/simd.h"

namespace gristmill::GM_ISA {
namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline float widen(float x) { return x; }
inline float widen(uint16_t x) { return bf16_to_f32(x); }
inline uint16_t narrow(float x) { return f32_to_bf16(x); }
inline uint16_t narrow(uint16_t x) { return x; }

// Where an operand lies: element (r, k) at data[r * row + k * col], r < rows, k < cols.
template <class T>
struct Source {
  const T* data;
  int64_t row, col, rows, cols;
};

// What one step of k holds of row r, as the bits of a float. Kinds of step:
struct Plain {  // the value
  static constexpr int64_t kEach = 1;
  static constexpr bool kRounds = false;
  template <class T>
  static float of(const Source<T>& s, int64_t r, int64_t k) {
    return widen(s.data[r * s.row + k * s.col]);
  }
};
struct Rounded {  // the value, passed through bfloat16
  static constexpr int64_t kEach = 1;
  static constexpr bool kRounds = true;
  template <class T>
  static float of(const Source<T>& s, int64_t r, int64_t k) {
    return bf16_to_f32(narrow(s.data[r * s.row + k * s.col]));
  }
};
struct Paired {  // two values in bfloat16; an odd last one is paired with zero
  static constexpr int64_t kEach = 2;
  static constexpr bool kRounds = false;
  template <class T>
  static float of(const Source<T>& s, int64_t r, int64_t k) {
    const T* p = s.data + r * s.row + 2 * k * s.col;
    uint32_t bits = narrow(*p) | (2 * k + 1 < s.cols ? static_cast<uint32_t>(narrow(p[s.col])) << 16 : 0);
    return __builtin_bit_cast(float, bits);
  }
};

// dst[k * P + r] for n rows from r0 and steps k0 to k1; what is beyond the operand's rows is zero.
template <class Step, int P, class T>
void pack_slowly(float* dst, const Source<T>& s, int64_t r0, int64_t k0, int64_t k1) {
  for (int64_t k = k0; k < k1; ++k)
    for (int64_t r = 0; r < P; ++r) dst[k * P + r] = r0 + r < s.rows ? Step::of(s, r0 + r, k) : 0.0f;
}

}  // namespace
}  // namespace gristmill::GM_ISA

#if defined(__AVX512F__)
#include "cpu/pack_avx512.h"
#else
#include "cpu/pack_plain.h"
#endif
