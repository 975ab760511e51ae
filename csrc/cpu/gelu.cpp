// gelu(x) = x Phi(x), Phi the normal distribution. Hendrycks and Gimpel, "Gaussian error linear units", 2016.
// Approximated, Phi(x) = (1 + tanh(u)) / 2 = sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
#include "cpu/blocks.h"

namespace gristmill::GM_ISA {
namespace {

struct Phi {
  vf value, slope;
};

// sigmoid(2 u). Beyond 11 it is 0 or 1, and x^3 may overflow.
template <class T>
inline Phi phi_tanh(vf x) {
  vf c = vmin(vset(11.0f), vmax(vset(-11.0f), x)), square = c * c;
  vf e = vexp2<T>(c * vfma(square, vset(-0.10294324f), vset(-2.30220820f)));  // exp(-2 u)
  vf s = vset(1.0f) / (vset(1.0f) + e);
  return Phi{s, s * (vset(1.0f) - s) * vfma(square, vset(0.214064448818f), vset(1.59576912f))};
}

// x Phi(x) = max(x, 0) - |x| tail, with the tail below -|x|: exact where Phi(x) is small and 1 - Phi(|x|) would cancel.
template <class T>
struct Exact {
  static vf forward(vf x) {
    vf m = vmin(vset(15.0f), vabs(x));
    return vfma(-m, vnormal<T>(m).tail, vmax(vzero(), x));
  }
  static vf slope(vf x) {
    Normal n = vnormal<T>(vmin(vset(15.0f), vabs(x)));
    return vfma(x, n.density * vset(0.398942280f), vselect_gt(x, vzero(), vset(1.0f) - n.tail, n.tail));
  }
};

template <class T>
struct Tanh {
  static vf forward(vf x) { return x * phi_tanh<T>(x).value; }
  static vf slope(vf x) {  // Phi(x) + x Phi'(x)
    Phi p = phi_tanh<T>(x);
    return vfma(x, p.slope, p.value);
  }
};

}  // namespace

int64_t gelu_forward_workspace(const GeluForwardArgs*, int32_t) { return 0; }
int64_t gelu_backward_workspace(const GeluBackwardArgs*, int32_t) { return 0; }

Status gelu_forward(Context* ctx, const GeluForwardArgs* a) {
  if (a->out.dtype != a->x.dtype || !unit_stride(1, a->cols, {a->out, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    auto run = [&](auto kind) {
      for_pieces(ctx, a->rows, a->cols, {a->out, a->x}, [=](int64_t i, int64_t j0, int64_t n) {
        const T* x = row_of<const T>(a->x, i) + j0;
        T* out = row_of<T>(a->out, i) + j0;
        bool add = a->out.accumulate;
        map(out, n, add, [=](vf v) { return kind.forward(v); }, x);
      });
      return Status::ok;
    };
    return a->approximate ? run(Tanh<T>{}) : run(Exact<T>{});
  });
}

Status gelu_backward(Context* ctx, const GeluBackwardArgs* a) {
  if (a->dx.dtype != a->x.dtype || a->dout.dtype != a->x.dtype) return Status::unsupported;
  if (!unit_stride(1, a->cols, {a->dx, a->dout, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    auto run = [&](auto kind) {
      for_pieces(ctx, a->rows, a->cols, {a->dx, a->dout, a->x}, [=](int64_t i, int64_t j0, int64_t n) {
        const T *x = row_of<const T>(a->x, i) + j0, *dout = row_of<const T>(a->dout, i) + j0;
        T* dx = row_of<T>(a->dx, i) + j0;
        bool add = a->dx.accumulate;
        map(dx, n, add, [=](vf d, vf v) { return d * kind.slope(v); }, dout, x);
      });
      return Status::ok;
    };
    return a->approximate ? run(Tanh<T>{}) : run(Exact<T>{});
  });
}

}  // namespace gristmill::GM_ISA
