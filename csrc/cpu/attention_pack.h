// Where the operands of attention lie, and how they are laid out for the tiles.
#pragma once
#include "cpu/attention_tiles.h"
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t KB = kAttentionKeys, kMaxD = 256;
static_assert(kMaxD <= kStride && KB <= kStride && KB % kPanel == 0);

inline int64_t padded(int64_t d) { return ceil_div(d, W) * W; }

// The arithmetic of a stored type: bfloat16 in pairs where the table has the instruction, else widened.
template <class T>
struct ArithmeticOf {
  using Items = Single;
};
#if defined(__AVX512BF16__)
template <>
struct ArithmeticOf<uint16_t> {
  using Items = Pairs;
};
#endif

template <class T>
T* at(const View& v, int64_t b, int64_t t, int64_t h) {
  return static_cast<T*>(v.data) + b * v.strides[0] + t * v.strides[1] + h * v.strides[2];
}

inline float* lse_at(const View& v, int64_t b, int64_t h, int64_t t) {
  return static_cast<float*>(v.data) + b * v.strides[0] + h * v.strides[1] + t * v.strides[2];
}

// Number of keys the first query of sequence b sees; the next ones see one more each where the mask is causal.
template <class A>
int64_t seen_first(const A* a, int64_t b) {
  if (!a->causal) return a->S;
  return (a->start.data ? static_cast<const int64_t*>(a->start.data)[b * a->start.strides[0]] : a->S - a->T) + 1;
}
template <class A>
int64_t seen(const A* a, int64_t b, int64_t t) {
  return a->causal ? seen_first(a, b) + t : a->S;
}

template <class A>
bool supported(const A* a, std::initializer_list<View> views) {
  for (const View& v : views)
    if (v.dtype != a->q.dtype) return false;
  return unit_stride(3, a->D, views) && a->D <= kMaxD && a->G > 0 && a->H % a->G == 0;
}

// Asks for a row of D numbers: rows lie too far apart for the processor to see that they will be read.
template <class T>
void prefetch_row(T* row, int64_t D) {
  for (int64_t d = 0; d < D; d += 64 / sizeof(T)) __builtin_prefetch(row + d, std::is_const_v<T> ? 0 : 1);
}

// Rows that the next queries of a worker will touch, asked for while tiles compute.
struct Ahead {
  const char* from[4];
  int64_t stride[4], rows, bytes, each;  // `rows` of each of the four, `each` at a time
  template <class T>
  void set(int i, const View& v, int64_t b, int64_t t, int64_t h) {
    from[i] = reinterpret_cast<const char*>(at<const T>(v, b, t, h));
    stride[i] = v.strides[1] * static_cast<int64_t>(sizeof(T));
  }
  void fetch() {
    for (int64_t n = smaller(each, rows); n > 0; --n, --rows)
      for (int i = 0; i < 4; ++i) {
        for (int64_t x = 0; x < bytes; x += 64) __builtin_prefetch(from[i] + x, 0, 2);
        from[i] += stride[i];
      }
  }
};

// Rows of D numbers as items, for the side of a product that is broadcast.
template <class M, class T>
void pack_row(float* dst, const T* src, int64_t D, bool negative) {
  for (int64_t d = 0; d < D; d += W * M::kEach) {
    vf items = M::along(src + d, D - d);
    vstore(dst + d / M::kEach, negative ? M::negate(items) : items);
  }
}

// n rows of D numbers, transposed: item k of row r at dst[k kPanel + r] of its panel of kPanel rows. `meanwhile` is
// called for each W by W items.
template <class M, class T, class F>
void pack_panels(float* dst, const T* src, int64_t stride, int64_t n, int64_t D, const F& meanwhile) {
  int64_t items = ceil_div(D, M::kEach);
  for (int64_t r0 = 0; r0 < n; r0 += W) {
    for (int64_t r = r0 + W; r < smaller(r0 + 2 * W, n); ++r) prefetch_row(src + r * stride, D);
    for (int64_t k0 = 0; k0 < items; k0 += W) {
      meanwhile();
      float* to = dst + r0 / kPanel * kPanel * items + k0 * kPanel + r0 % kPanel;
      const T* from = src + r0 * stride + k0 * M::kEach;
      int64_t rows = n - r0, left = D - k0 * M::kEach;
#if defined(__AVX512F__)
      __m512i t[W];
      auto load = [&](int64_t below, int64_t length) __attribute__((always_inline)) {
#pragma GCC unroll 16
        for (int64_t r = 0; r < W; ++r)
          t[r] = _mm512_castps_si512(r < below ? M::along(from + r * stride, length).r[0] : vzero().r[0]);
      };
      rows >= W&& left >= W* M::kEach ? load(W, W * M::kEach) : load(rows, left);
      transpose16(t);
      for (int64_t k = 0; k < smaller(W, items - k0); ++k) _mm512_storeu_si512(to + k * kPanel, t[k]);
#else
      for (int64_t r = 0; r < W; ++r) {
        float t[W];
        vstore(t, r < rows ? M::along(from + r * stride, left) : vzero());
        for (int64_t k = 0; k < smaller(W, items - k0); ++k) to[k * kPanel + r] = t[k];
      }
#endif
    }
  }
}

template <class M, class T>
void pack_panels(float* dst, const T* src, int64_t stride, int64_t n, int64_t D) {
  pack_panels<M>(dst, src, stride, n, D, [] {});
}

// n rows of D numbers as rows of padded(D) items that run down the columns, for the side that is summed with weights.
template <class M, class T>
void pack_values(float* dst, const T* src, int64_t stride, int64_t n, int64_t D) {
  int64_t P = padded(D);
  for (int64_t r = 0; r < n; r += M::kEach) {
    for (int64_t e = r + W; e < smaller(r + W + M::kEach, n); ++e) prefetch_row(src + e * stride, D);
    for (int64_t d = 0; d < D; d += W)
      vstore(dst + r / M::kEach * P + d, M::across(src + r * stride + d, stride, n - r, D - d));
  }
}

// f(worker, i) for each i below n. Whoever is free takes the next; a worker, of which there are at most ctx->threads,
// does one at a time.
template <class F>
void share_out(Context* ctx, int64_t n, const F& f) {
  struct Job {
    const F* f;
    int64_t n, next;
  } job{&f, n, 0};
  ctx->parallel_for(
      ctx, smaller(larger(ctx->threads, 1), n),
      [](void* p, int64_t worker) {
        auto* j = static_cast<Job*>(p);
        for (int64_t i; (i = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < j->n;) (*j->f)(worker, i);
      },
      &job);
}

}  // namespace
}  // namespace gristmill::GM_ISA
