// Philox4x32-10 (core/rng.h) sixteen blocks at a time: the same words as the scalar function on every table.
#pragma once
#include "core/rng.h"
#include "core/simd_int.h"

namespace gristmill::GM_ISA {
namespace {

// A draw is the 64 words of 16 blocks. Lane p of w[j] is word j of block order(p): with this order the exchange of
// words and lanes that puts elements side by side stays inside quarters of four lanes.
struct Draw {
  vu w[4];
};
constexpr int64_t kDraw = 64;  // words
constexpr int order(int lane) { return lane % 4 * 4 + lane / 4; }

#if defined(__AVX512F__)
using pairs = __m512i;  // blocks in 64-bit lanes: products ignore the upper halves, which may hold anything
inline pairs p_set(uint64_t x) { return _mm512_set1_epi64(static_cast<int64_t>(x)); }
inline pairs p_load(const uint64_t* p) { return _mm512_loadu_si512(p); }
inline pairs p_add(pairs a, pairs b) { return _mm512_add_epi64(a, b); }
inline pairs p_mul(pairs a, pairs b) { return _mm512_mul_epu32(a, b); }
inline pairs p_high(pairs a) { return _mm512_srli_epi64(a, 32); }
inline pairs p_xor(pairs a, pairs b, pairs c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
inline pairs p_lower(pairs even, pairs odd) { return _mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA); }
inline pairs p_upper(pairs even, pairs odd) { return _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB); }
inline native_u p_words(pairs a) { return a; }
#elif defined(__AVX2__)
using pairs = __m256i;
inline pairs p_set(uint64_t x) { return _mm256_set1_epi64x(static_cast<int64_t>(x)); }
inline pairs p_load(const uint64_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline pairs p_add(pairs a, pairs b) { return _mm256_add_epi64(a, b); }
inline pairs p_mul(pairs a, pairs b) { return _mm256_mul_epu32(a, b); }
inline pairs p_high(pairs a) { return _mm256_srli_epi64(a, 32); }
inline pairs p_xor(pairs a, pairs b, pairs c) { return _mm256_xor_si256(_mm256_xor_si256(a, c), b); }
inline pairs p_lower(pairs even, pairs odd) { return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa); }
inline pairs p_upper(pairs even, pairs odd) { return _mm256_blend_epi32(p_high(even), odd, 0xaa); }
inline native_u p_words(pairs a) { return a; }
#elif defined(__ARM_NEON) && !defined(GM_SCALAR)
using pairs = uint64x2_t;
inline pairs p_set(uint64_t x) { return vdupq_n_u64(x); }
inline pairs p_load(const uint64_t* p) { return vld1q_u64(p); }
inline pairs p_add(pairs a, pairs b) { return vaddq_u64(a, b); }
inline pairs p_mul(pairs a, pairs b) { return vmull_u32(vmovn_u64(a), vmovn_u64(b)); }
inline pairs p_high(pairs a) { return vshrq_n_u64(a, 32); }
inline pairs p_xor(pairs a, pairs b, pairs c) { return veorq_u64(veorq_u64(a, c), b); }
inline pairs p_lower(pairs even, pairs odd) { return vsliq_n_u64(even, odd, 32); }
inline pairs p_upper(pairs even, pairs odd) { return vsriq_n_u64(odd, even, 32); }
inline native_u p_words(pairs a) { return vreinterpretq_u32_u64(a); }
#endif

// The keys of ten rounds, and the words of the counter that do not change among 2^32 blocks from `first` on (what
// depends on them alone leaves the loop: two products of twenty).
struct Keys {
  uint64_t seed, stream, high;
  uint64_t round[10][2];
  Keys(const uint64_t* key, int64_t block) : seed(key[0]), stream(key[1]), high(static_cast<uint64_t>(block) >> 32) {
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int i = 0; i < 10; ++i, k0 += kPhiloxWeyl0, k1 += kPhiloxWeyl1) round[i][0] = k0, round[i][1] = k1;
  }
};

#if defined(__AVX512F__) || defined(__AVX2__) || (defined(__ARM_NEON) && !defined(GM_SCALAR))
// All rounds but the last, of several registers of blocks in turns: a round waits 5 cycles for itself.
template <int count>
inline void rounds(const Keys& keys, pairs (&c)[count][4]) {
  pairs m0 = p_set(kPhiloxMultiplier0), m1 = p_set(kPhiloxMultiplier1);
#pragma GCC unroll 9
  for (int i = 0; i < 9; ++i)
#pragma GCC unroll 4
    for (int r = 0; r < count; ++r) {
      pairs p0 = p_mul(c[r][0], m0), p1 = p_mul(c[r][2], m1);
      c[r][0] = p_xor(p_high(p1), c[r][1], p_set(keys.round[i][0]));
      c[r][2] = p_xor(p_high(p0), c[r][3], p_set(keys.round[i][1]));
      c[r][1] = p1;
      c[r][3] = p0;
    }
}

// The last round of two registers of blocks, whose words come to lie beside one another before they meet the key: so
// each half is moved once.
inline void last_round(const Keys& keys, const pairs (&even)[4], const pairs (&odd)[4], native_u (&w)[4]) {
  pairs m0 = p_set(kPhiloxMultiplier0), m1 = p_set(kPhiloxMultiplier1);
  auto both = [](uint64_t key) { return p_set(key << 32 | key); };
  pairs e0 = p_mul(even[0], m0), o0 = p_mul(odd[0], m0), e1 = p_mul(even[2], m1), o1 = p_mul(odd[2], m1);
  w[0] = p_words(p_xor(p_upper(e1, o1), p_lower(even[1], odd[1]), both(keys.round[9][0])));
  w[1] = p_words(p_lower(e1, o1));
  w[2] = p_words(p_xor(p_upper(e0, o0), p_lower(even[3], odd[3]), both(keys.round[9][1])));
  w[3] = p_words(p_lower(e0, o0));
}

// Blocks 16 i .. 16 i + 31.
inline void draw(const Keys& keys, uint64_t i, Draw (&d)[2]) {
  constexpr int kHalf = kNativeLanes / 2, kTogether = kNativeLanes == 16 ? 4 : 2;  // registers that there are
  struct Order {
    uint64_t at[4 * kHalf * kRegisters];
  };
  alignas(64) static constexpr Order kOrder = [] {  // the even lanes of a register, then its odd ones
    Order o{};
    for (int lane = 0; lane < 2 * W; ++lane)
      o.at[lane / kNativeLanes * kNativeLanes + lane % 2 * kHalf + lane % kNativeLanes / 2] =
          static_cast<uint64_t>(lane / W * W + order(lane % W));
    return o;
  }();
  pairs base = p_set(16 * i);
#pragma GCC unroll 8
  for (int first = 0; first < 4 * kRegisters; first += kTogether) {
    pairs c[kTogether][4];
    for (int r = 0; r < kTogether; ++r) {
      c[r][0] = p_add(base, p_load(kOrder.at + (first + r) * kHalf));
      c[r][1] = p_set(keys.high);
      c[r][2] = p_set(keys.stream);
      c[r][3] = p_set(keys.stream >> 32);
    }
    rounds(keys, c);
    for (int r = 0; r < kTogether; r += 2) {
      int at = (first + r) / 2;
      native_u w[4];
      last_round(keys, c[r], c[r + 1], w);
      for (int j = 0; j < 4; ++j) d[at / kRegisters].w[j].r[at % kRegisters] = w[j];
    }
  }
}
#else
inline void draw(const Keys& keys, uint64_t i, Draw (&d)[2]) {
  for (int lane = 0; lane < 2 * W; ++lane) {
    uint64_t at = static_cast<uint64_t>(lane / W * W + order(lane % W));
    Philox4 block = philox(keys.seed, keys.stream, 16 * i + at);
    for (int j = 0; j < 4; ++j) d[lane / W].w[j].r[lane % W] = block.x[j];
  }
}
#endif

// Lane 4 q + r of v[j] goes to lane 4 q + j of v[r]: what came from word j of a block becomes element j of it.
inline void side_by_side(vf (&v)[4]) {
#if defined(__AVX512F__)
  __m512 a = _mm512_unpacklo_ps(v[0].r[0], v[1].r[0]), b = _mm512_unpackhi_ps(v[0].r[0], v[1].r[0]);
  __m512 c = _mm512_unpacklo_ps(v[2].r[0], v[3].r[0]), d = _mm512_unpackhi_ps(v[2].r[0], v[3].r[0]);
  v[0].r[0] = _mm512_shuffle_ps(a, c, 0x44);
  v[1].r[0] = _mm512_shuffle_ps(a, c, 0xee);
  v[2].r[0] = _mm512_shuffle_ps(b, d, 0x44);
  v[3].r[0] = _mm512_shuffle_ps(b, d, 0xee);
#elif defined(__AVX2__)
  for (int r = 0; r < kRegisters; ++r) {
    __m256 a = _mm256_unpacklo_ps(v[0].r[r], v[1].r[r]), b = _mm256_unpackhi_ps(v[0].r[r], v[1].r[r]);
    __m256 c = _mm256_unpacklo_ps(v[2].r[r], v[3].r[r]), d = _mm256_unpackhi_ps(v[2].r[r], v[3].r[r]);
    v[0].r[r] = _mm256_shuffle_ps(a, c, 0x44);
    v[1].r[r] = _mm256_shuffle_ps(a, c, 0xee);
    v[2].r[r] = _mm256_shuffle_ps(b, d, 0x44);
    v[3].r[r] = _mm256_shuffle_ps(b, d, 0xee);
  }
#else
  float t[4][W], o[4][W];
  for (int j = 0; j < 4; ++j) vstore(t[j], v[j]);
  for (int j = 0; j < 4; ++j)
    for (int lane = 0; lane < W; ++lane) o[lane % 4][lane / 4 * 4 + j] = t[j][lane];
  for (int j = 0; j < 4; ++j) v[j] = vload(o[j]);
#endif
}

// The words of a draw in their order.
inline void side_by_side(Draw& d) {
  vf v[4];
  for (int j = 0; j < 4; ++j) v[j] = vfloat(d.w[j]);
  side_by_side(v);
  for (int j = 0; j < 4; ++j) d.w[j] = vbits(v[j]);
}

}  // namespace
}  // namespace gristmill::GM_ISA
