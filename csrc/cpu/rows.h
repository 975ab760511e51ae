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
inline vf vmaximum(vf a, vf b) {
  vf x = vmax(a, b), y = vmax(b, a);
  vf either = vfma(x, vset(0.5f), y * vset(0.5f));
  return vselect_gt(either, vset(-INFINITY), x, either);
}

inline float maximum(float a, float b) { return a > b || a != a ? a : b; }

// f(j, n) for each vector of a row; n is a constant but in the last one, where that is not full.
template <class F>
inline void each_vector(int64_t cols, const F& f) {
  int64_t j = 0;
  for (; j + W <= cols; j += W) f(j, std::integral_constant<int64_t, W>{});
  if (j < cols) f(j, cols - j);
}

template <class T>
inline void put(T* p, vf v, int64_t n, bool add) {
  vstore_n(p, add ? vload_n(p, n) + v : v, n);
}

}  // namespace
}  // namespace gristmill::GM_ISA
