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

// The tail of the normal distribution below -m, 0 <= m < 15, for a result stored as T.
template <class T>
inline vf tail(vf m) {
  return vnormal<T>(m).tail;
}
#if defined(__AVX512F__)
// 2^(a parabola), one for each quarter of an octave of m + 1: off by 2^-12.8 and what the power is. Half the time of
// the quotient. The two lowest bits of an exponent and the two highest of its mantissa choose among the sixteen.
template <>
inline vf tail<uint16_t>(vf m) {
  const __m512 c[3] = {
      _mm512_setr_ps(-1.05606484f, -1.12304914f, -1.20838892f, -1.30493021f, -1.45391178f, -1.66085839f, -1.85706711f,
                     -2.03850579f, -2.27524495f, -2.55824161f, -2.79925489f, -3.00805092f, -1.00002396f, -1.00215685f,
                     -1.00944352f, -1.02340126f),
      _mm512_setr_ps(-1.00325596f, -0.913352847f, -0.827567458f, -0.750013471f, -0.652983606f, -0.548552454f,
                     -0.469551086f, -0.408775032f, -0.342366189f, -0.278862834f, -0.234748378f, -0.202469483f,
                     -1.14936209f, -1.13245833f, -1.103284f, -1.06598902f),
      _mm512_setr_ps(-0.596804917f, -0.627040088f, -0.648626208f, -0.664214313f, -0.680027664f, -0.693218946f,
                     -0.701177657f, -0.706270039f, -0.710930526f, -0.714496493f, -0.716516495f, -0.717764616f,
                     -0.478101254f, -0.512301326f, -0.541656911f, -0.566627562f)};
  __m512i piece = _mm512_srli_epi32(_mm512_castps_si512((m + vset(1.0f)).r[0]), 21);
  auto of_piece = [=](__m512 x) { return vf{{_mm512_permutexvar_ps(piece, x)}}; };
  return vexp2<uint16_t>(vfma(vfma(of_piece(c[2]), m, of_piece(c[1])), m, of_piece(c[0])));
}
#endif

// x Phi(x) = max(x, 0) - |x| tail, with the tail below -|x|: exact where Phi(x) is small and 1 - Phi(|x|) would cancel.
template <class T>
struct Exact {
  static vf forward(vf x) {
    vf m = vmin(vset(14.99f), vabs(x));  // there the tail is 0
    return vfma(-m, tail<T>(m), vmax(vzero(), x));
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
