// Sum, mean, maximum or sum of squares of each row: 16 lanes per kReduceChunk elements, partial sums added in order.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

template <class T>
vf gather(const T* p, int64_t stride, int64_t n) {
  T t[W] = {};
  for (int64_t l = 0; l < (n < W ? n : W); ++l) t[l] = p[l * stride];
  return vload(t);
}

// f(acc, v) over the vectors of a row, 0 in the lanes past its end.
template <class T, class F>
__attribute__((flatten)) inline vf fold_row(const T* x, int64_t stride, int64_t n, F f) {
  vf acc = vzero();
  if (stride != 1) {
    for (int64_t j = 0; j < n; j += W) acc = f(acc, gather(x + j * stride, stride, n - j));
    return acc;
  }
  each_vector(n, [&](int64_t j, auto w) { acc = f(acc, vload_n(x + j, w)); });
  return acc;
}

// The largest of the lanes, which NaN does not reach, and a sum of squares that is NaN where one was: no infinities
// cancel in it. What is largest does not depend on the order, but for the sign of a zero, which is lost at the end.
struct Top {
  vf most = vset(-INFINITY), seen = vzero();
  GM_INLINE void take(vf v, vf maybe_nan) {
    most = vmax(v, most);
    seen = vfma(maybe_nan, maybe_nan, seen);
  }
};

// Four chains, as one would wait for each comparison; with AVX2 two, as it has no registers for more.
template <class T>
__attribute__((flatten)) inline float largest(const T* x, int64_t stride, int64_t n) {
  constexpr int kChains = kRegisters == 1 ? 4 : 2;
  Top top[kChains];
  int64_t j = 0;
  for (; stride == 1 && j + kChains * W <= n; j += kChains * W)
    for (int k = 0; k < kChains; ++k) {
      vf v = vload(x + j + k * W);
      top[k].take(v, v);
    }
  for (; j < n; j += W) {
    vf v = stride == 1 ? vload_n(x + j, n - j) : gather(x + j * stride, stride, n - j);
    top[0].take(vfirst(v, n - j, -INFINITY), v);
  }
  for (int k = 1; k < kChains; ++k) top[0].take(top[k].most, top[k].seen);
  float seen = vsum(top[0].seen);
  return seen == seen ? vhmax(top[0].most) : NAN;
}

template <class T>
float partial(const T* x, int64_t stride, int64_t n, Reduce op) {
  if (op == Reduce::max) return largest(x, stride, n);
  if (op == Reduce::sum_of_squares) return vsum(fold_row(x, stride, n, [](vf acc, vf v) { return vfma(v, v, acc); }));
  return vsum(fold_row(x, stride, n, [](vf acc, vf v) { return acc + v; }));
}

// The sums of up to 16 neighbouring columns, each with the lanes and the tree of `partial`: the same bits, read along
// the memory's rows.
template <class T>
void partial_columns(const T* x, int64_t stride, int64_t n, int64_t columns, float* out, int64_t out_stride) {
  vf lanes[W];
  for (int l = 0; l < W; ++l) lanes[l] = vzero();
  int64_t whole = n / W * W;
  for (int64_t j = 0; j < whole; j += W)
    for (int l = 0; l < W; ++l) lanes[l] = lanes[l] + vload_n(x + (j + l) * stride, columns);
  for (int64_t j = whole; j < n; ++j) lanes[j - whole] = lanes[j - whole] + vload_n(x + j * stride, columns);
  for (int half = W / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lanes[l] = lanes[l] + lanes[l + half];
  float sums[W];
  vstore(sums, lanes[0]);
  for (int64_t i = 0; i < columns; ++i) out[i * out_stride] = sums[i];
}

// The largest of up to 64 neighbouring columns, read along the memory's rows.
template <class T>
void largest_columns(const T* x, int64_t stride, int64_t n, int64_t columns, float* out, int64_t out_stride) {
  vf most[4];
  for (vf& v : most) v = vset(-INFINITY);
  if (columns == 4 * W) {
    for (int64_t j = 0; j < n; ++j)
      for (int k = 0; k < 4; ++k) most[k] = vmaximum(vload(x + j * stride + k * W), most[k]);
  } else {
    for (int64_t j = 0; j < n; ++j)
      for (int k = 0; k * W < columns; ++k)
        most[k] = vmaximum(vload_n(x + j * stride + k * W, columns - k * W), most[k]);
  }
  float largest[4 * W];
  for (int k = 0; k < 4; ++k) vstore(largest + k * W, most[k]);
  for (int64_t i = 0; i < columns; ++i) out[i * out_stride] = largest[i];
}

}  // namespace

int64_t reduce_workspace(const ReduceArgs* a, int32_t) {
  return a->rows * ((a->cols + kReduceChunk - 1) / kReduceChunk) * 4;
}

Status reduce(Context* ctx, const ReduceArgs* a) {
  if (a->out.dtype != DType::f32 || a->cols < 1) return Status::unsupported;
  if (ctx->workspace_bytes < reduce_workspace(a, 1)) return Status::workspace;
  int64_t chunks = (a->cols + kReduceChunk - 1) / kReduceChunk;
  float* sums = static_cast<float*>(ctx->workspace);
  Reduce op = static_cast<Reduce>(a->op);
  bool columns = op != Reduce::sum_of_squares && a->x.strides[0] == 1 && a->x.strides[1] != 1;
  int64_t together = op == Reduce::max ? 4 * W : W;
  Status s = by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    if (columns) {
      auto f = op == Reduce::max ? largest_columns<T> : partial_columns<T>;
      for_rows(ctx, (a->rows + together - 1) / together * chunks, 1, [=](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          int64_t row = i / chunks * together, c = i % chunks * kReduceChunk;
          int64_t n = a->cols - c < kReduceChunk ? a->cols - c : kReduceChunk;
          int64_t wide = a->rows - row < together ? a->rows - row : together;
          f(row_of<const T>(a->x, row) + c * a->x.strides[1], a->x.strides[1], n, wide,
            sums + row * chunks + i % chunks, chunks);
        }
      });
      return Status::ok;
    }
    for_rows(ctx, a->rows * chunks, a->cols >= kReduceChunk ? 1 : kReduceChunk / a->cols,
             [=](int64_t first, int64_t last) {
               for (int64_t i = first; i < last; ++i) {
                 int64_t c = i % chunks * kReduceChunk, n = a->cols - c < kReduceChunk ? a->cols - c : kReduceChunk;
                 sums[i] = partial(row_of<const T>(a->x, i / chunks) + c * a->x.strides[1], a->x.strides[1], n, op);
               }
             });
    return Status::ok;
  });
  if (s != Status::ok) return s;
  for (int64_t i = 0; i < a->rows; ++i) {
    float total = sums[i * chunks];
    for (int64_t c = 1; c < chunks; ++c) {
      float x = sums[i * chunks + c];
      total = op == Reduce::max ? maximum(total, x) : total + x;
    }
    if (op == Reduce::max) total += 0.0f;
    if (op == Reduce::mean) total /= static_cast<float>(a->cols);
    float* out = static_cast<float*>(a->out.data) + i * a->out.strides[0];
    *out = a->out.accumulate ? *out + total : total;
  }
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
