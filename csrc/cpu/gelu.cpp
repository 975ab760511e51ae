// gelu(x) = x Phi(x), Phi the normal distribution. Hendrycks and Gimpel, "Gaussian error linear units", 2016.
// Approximated, Phi(x) = (1 + tanh(u)) / 2 = sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

struct Phi {
  vf value, slope;
};

// From the tail below -|x|, which is exact where Phi(x) is small, while 1 - Phi(|x|) would cancel.
template <bool approximate>
inline Phi phi(vf x) {
  vf tail, slope;
  if constexpr (approximate) {
    vf m = vmin(vset(15.0f), vabs(x)), square = m * m;  // beyond, the tail is 0 and x^3 may overflow
    vf u2 = m * vset(1.59576912f) * vfma(square, vset(0.044715f), vset(1.0f));
    tail = vset(1.0f) / (vset(1.0f) + vexp(u2));
    slope = tail * (vset(1.0f) - tail) * vset(1.59576912f) * vfma(square, vset(0.134145f), vset(1.0f));
  } else {
    Normal n = vnormal(vabs(x));
    tail = n.tail, slope = n.density * vset(0.398942280f);
  }
  return Phi{vselect_gt(x, vzero(), vset(1.0f) - tail, tail), slope};
}

template <bool approximate, class T>
void forward_row(T* out, const T* x, int64_t cols, bool add) {
  for (int64_t j = 0; j < cols; j += W) {
    vf v = vload_n(x + j, cols - j);
    put(out + j, v * phi<approximate>(v).value, cols - j, add);
  }
}

// d gelu / dx = Phi(x) + x Phi'(x)
template <bool approximate, class T>
void backward_row(T* dx, const T* dout, const T* x, int64_t cols, bool add) {
  for (int64_t j = 0; j < cols; j += W) {
    int64_t n = cols - j;
    vf v = vload_n(x + j, n);
    Phi p = phi<approximate>(v);
    put(dx + j, vload_n(dout + j, n) * vfma(v, p.slope, p.value), n, add);
  }
}

}  // namespace

int64_t gelu_forward_workspace(const GeluForwardArgs*, int32_t) { return 0; }
int64_t gelu_backward_workspace(const GeluBackwardArgs*, int32_t) { return 0; }

Status gelu_forward(Context* ctx, const GeluForwardArgs* a) {
  if (a->out.dtype != a->x.dtype || !unit_stride(1, a->cols, {a->out, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    auto row = a->approximate ? forward_row<true, T> : forward_row<false, T>;
    for_rows(ctx, a->rows, 16, [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        row(row_of<T>(a->out, i), row_of<const T>(a->x, i), a->cols, a->out.accumulate);
    });
    return Status::ok;
  });
}

Status gelu_backward(Context* ctx, const GeluBackwardArgs* a) {
  if (a->dx.dtype != a->x.dtype || a->dout.dtype != a->x.dtype) return Status::unsupported;
  if (!unit_stride(1, a->cols, {a->dx, a->dout, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    auto row = a->approximate ? backward_row<true, T> : backward_row<false, T>;
    for_rows(ctx, a->rows, 16, [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        row(row_of<T>(a->dx, i), row_of<const T>(a->dout, i), row_of<const T>(a->x, i), a->cols, a->dx.accumulate);
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
