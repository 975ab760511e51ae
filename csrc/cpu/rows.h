// What the row-wise kernels share: a typed row of a View, and rows handed out in fixed chunks.
#pragma once
#include <initializer_list>
#include <type_traits>

#include "core/math.h"
#include "cpu/table.h"

namespace gristmill::GM_ISA {
namespace {

template <class T>
inline T* row_of(const View& v, int64_t i) {
  return static_cast<T*>(v.data) + i * v.strides[0];
}

// Calls f(type{}) with float or uint16_t (bfloat16).
template <class F>
inline Status by_type(DType t, F f) {
  if (t == DType::f32) return f(float{});
  if (t == DType::bf16) return f(uint16_t{});
  return Status::unsupported;
}

// Whether the n elements along a dimension lie side by side, as vector loads take them.
inline bool unit_stride(int dimension, int64_t n, std::initializer_list<View> views) {
  for (const View& v : views)
    if (v.data && n > 1 && v.strides[dimension] != 1) return false;
  return true;
}

constexpr int64_t kTask = 32768;  // elements of a task

template <class F>
struct RowJob {
  const F* f;
  int64_t rows, chunk;
};

// f(first, last) over fixed chunks of rows.
template <class F>
inline void for_rows(Context* ctx, int64_t rows, int64_t chunk, const F& f) {
  RowJob<F> job{&f, rows, chunk};
  ctx->parallel_for(
      ctx, (rows + chunk - 1) / chunk,
      [](void* p, int64_t i) {
        auto* j = static_cast<RowJob<F>*>(p);
        int64_t first = i * j->chunk, last = first + j->chunk < j->rows ? first + j->chunk : j->rows;
        (*j->f)(first, last);
      },
      &job);
}

// The larger one, or NaN where either is (vmax drops a NaN on the left).
GM_INLINE vf vmaximum(vf a, vf b) {
  vf x = vmax(a, b), y = vmax(b, a);
  vf either = vfma(x, vset(0.5f), y * vset(0.5f));
  return vselect_gt(either, vset(-INFINITY), x, either);
}

inline float maximum(float a, float b) { return a > b || a != a ? a : b; }

// f(j, n) for each vector of a row; n is a constant but in the last one, where that is not full.
template <class F>
__attribute__((flatten)) inline void each_vector(int64_t cols, const F& f) {
  int64_t j = 0;
  for (; j + W <= cols; j += W) f(j, std::integral_constant<int64_t, W>{});
  if (j < cols) f(j, cols - j);
}

// f(j, n, sum) adds a vector of a row to a sum: four chains, as one would wait for each addition.
template <class F>
__attribute__((flatten)) inline vf sum_vectors(int64_t cols, const F& f) {
  constexpr std::integral_constant<int64_t, W> whole{};
  vf s0 = vzero(), s1 = vzero(), s2 = vzero(), s3 = vzero();
  int64_t j = 0;
  for (; j + 4 * W <= cols; j += 4 * W) {
    s0 = f(j, whole, s0), s1 = f(j + W, whole, s1);
    s2 = f(j + 2 * W, whole, s2), s3 = f(j + 3 * W, whole, s3);
  }
  for (; j < cols; j += W) s0 = f(j, cols - j, s0);
  return (s0 + s1) + (s2 + s3);
}

// An op on single elements: f(row, column, n) for pieces of rows, or of the whole where rows follow one another.
template <class F>
inline void for_pieces(Context* ctx, int64_t rows, int64_t cols, std::initializer_list<View> views, const F& f) {
  bool whole = true;
  for (const View& v : views) whole = whole && (rows == 1 || v.strides[0] == cols);
  if (whole) cols *= rows, rows = 1;
  int64_t pieces = (cols + kTask - 1) / kTask;
  for_rows(ctx, rows * pieces, cols >= kTask || cols == 0 ? 1 : kTask / cols, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      int64_t j = i % pieces * kTask;
      f(i / pieces, j, cols - j < kTask ? cols - j : kTask);
    }
  });
}

template <class T>
GM_INLINE void put(T* p, vf v, int64_t n, bool add) {
  vstore_n(p, add ? vload_n(p, n) + v : v, n);
}

// out (cols) gets or is added the sum of `rows` partial rows, `step` apart, in order.
inline void add_up(Context* ctx, const View& out, const float* partial, int64_t rows, int64_t step, int64_t cols) {
  for_rows(ctx, cols, 16 * W, [&](int64_t first, int64_t last) {
    for (int64_t j = first; j < last; j += W) {
      vf sum = vzero();
      for (int64_t i = 0; i < rows; ++i) sum = sum + vload_n(partial + i * step + j, last - j);
      put(static_cast<float*>(out.data) + j, sum, last - j, out.accumulate);
    }
  });
}

}  // namespace
}  // namespace gristmill::GM_ISA
