// exp(x) / sum(exp(x)) of each row, in float32. A row of nothing but -inf gives 0.
#include "cpu/softmax.h"

namespace gristmill::GM_ISA {
namespace {

// The exponentials are kept until their sum is known: in a float32 result, in a buffer, or of a long row not at all.
template <class Y, class X>
void forward_row(Y* y, const X* x, int64_t cols, bool add) {
  using O = Mixed<Y, X>;
  constexpr int64_t kKept = 2048;
  float buffer[kKept], *kept = cols <= kKept ? buffer : nullptr;
  if constexpr (std::is_same_v<Y, float>) kept = add ? kept : y;
  vf shift = vset(shift_of(largest_of(x, cols)));
  auto exponential = [=](vf v) { return vexp_for<Y>(v - shift); };
  float total[1];
  sum_blocks<O>(total, cols, [=](int64_t j, auto n, Vectors<O>(&s)[1]) {
    Vectors<O> e = bfirst<O>(each_of<O>(exponential, bload<O>(x + j, n)), n, 0.0f);
    if (kept) bstore<O>(kept + j, e, n);
    s[0] = each_of<O>([](vf s, vf e) { return s + e; }, s[0], e);
  });
  vf scale = vset(total[0] == 0.0f ? 0.0f : 1.0f / total[0]);
  each_block<O>(cols, [=](int64_t j, auto n) {
    Vectors<O> e = kept ? bload<O>(kept + j, n) : each_of<O>(exponential, bload<O>(x + j, n));
    bput<O>(y + j, each_of<O>([=](vf e) { return e * scale; }, e), n, add);
  });
}

// dx = y (dy - sum(y dy))
template <class T>
void backward_row(T* dx, const T* dy, const T* y, int64_t cols, bool add) {
  vf dot = vset(sum_of_blocks<T>(cols, [](vf s, vf d, vf p) { return vfma(d, p, s); }, dy, y));
  map(dx, cols, add, [=](vf d, vf p) { return p * (d - dot); }, dy, y);
}

int64_t rows_each(int64_t cols) { return cols >= kTask || cols == 0 ? 1 : kTask / cols; }

}  // namespace

int64_t softmax_forward_workspace(const SoftmaxForwardArgs*, int32_t) { return 0; }
int64_t softmax_backward_workspace(const SoftmaxBackwardArgs*, int32_t) { return 0; }

Status softmax_forward(Context* ctx, const SoftmaxForwardArgs* a) {
  if (!unit_stride(1, a->cols, {a->out, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto in) {
    return by_type(a->out.dtype, [&](auto out) {
      for_rows(ctx, a->rows, rows_each(a->cols), [=](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i)
          forward_row(row_of<decltype(out)>(a->out, i), row_of<const decltype(in)>(a->x, i), a->cols,
                      a->out.accumulate);
      });
      return Status::ok;
    });
  });
}

Status softmax_backward(Context* ctx, const SoftmaxBackwardArgs* a) {
  DType t = a->out.dtype;
  if (a->dx.dtype != t || a->dout.dtype != t) return Status::unsupported;
  if (!unit_stride(1, a->cols, {a->dx, a->dout, a->out})) return Status::unsupported;
  return by_type(t, [&](auto type) {
    using T = decltype(type);
    for_rows(ctx, a->rows, rows_each(a->cols), [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        backward_row(row_of<T>(a->dx, i), row_of<const T>(a->dout, i), row_of<const T>(a->out, i), a->cols,
                     a->dx.accumulate);
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
