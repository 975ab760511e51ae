// One step of Adam on a flat buffer, for the two ways to decay and for averages in float32 or bfloat16.
#pragma once
#include "cpu/draws.h"
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

// Averages in bfloat16 are rounded at random: to nearest, an average that moves by 0.1 % a step would never leave its
// place, as neighbours are 0.4 to 0.8 % apart. Eight bits choose among 256 thresholds, in their middles.
inline void store_average(uint16_t* p, vf v, vu byte, int64_t n) {
  vstore_upper_n(p, vbits(v) + (vshl<8>(byte) | vuset(0x80)), n);
}
inline void store_average(float* p, vf v, vu, int64_t n) { vstore_n(p, v, n); }

// What all elements share; `decay` is a factor on the parameter, or what of it is added to the gradient.
template <bool decoupled>
struct AdamStep {
  vf scale, b1, b2, c1, c2, decay, rate, root, eps;
  template <class Args>
  explicit AdamStep(const Args* a)
      : scale(vset(a->step[1])),
        b1(vset(a->beta1)),
        b2(vset(a->beta2)),
        c1(vset(1.0f - a->beta1)),
        c2(vset(1.0f - a->beta2)),
        decay(vset(decoupled ? 1.0f - a->step[0] * a->weight_decay : a->weight_decay)),
        rate(vset(a->step[0] / a->step[2])),
        root(vset(1.0f / __builtin_sqrtf(a->step[3]))),
        eps(vset(a->eps)) {}

  // `byte` rounds both averages: an error of one does not care for that of the other.
  template <class S>
  void at(float* param, S* mean, S* square, const float* grad, vu byte, int64_t n) const {
    vf p = vload_n(param, n), g = vload_n(grad, n) * scale;
    if (!decoupled) g = vfma(decay, p, g);
    vf m = vfma(b1, vload_n(mean, n), c1 * g), v = vfma(b2, vload_n(square, n), c2 * g * g);
    store_average(mean, m, byte, n);
    store_average(square, v, byte, n);
    vstore_n(param, (decoupled ? p * decay : p) - rate * m / vfma(vsqrt(v), root, eps), n);
  }
};

template <bool decoupled, class S, class Args>
void adam_range(const Args* a, int64_t first, int64_t last) {
  AdamStep<decoupled> step(a);
  auto *param = static_cast<float*>(a->param.data), *grad = static_cast<float*>(a->grad.data);
  auto *m = static_cast<S*>(a->m.data), *v = static_cast<S*>(a->v.data);
  if constexpr (sizeof(S) == 4) {
    for (int64_t i = first; i < last; i += W) step.at(param + i, m + i, v + i, grad + i, vuset(0), last - i);
  } else {
    constexpr int64_t kDrawn = 4 * kDraw, kPair = 2 * kDrawn;  // elements of one draw, and of two
    Keys keys(a->key, first / 16);
    auto steps = [=](Draw& d, int64_t i) {
      side_by_side(d);
      for (int64_t j = 0; j < 16 && i < last; ++j, i += W) {
        step.at(param + i, m + i, v + i, grad + i, d.w[j % 4] & vuset(0xff), last - i);
        d.w[j % 4] = vshr<8>(d.w[j % 4]);
      }
    };
    for (int64_t i = first; i < last; i += kPair) {
      Draw d[2];
      draw(keys, static_cast<uint64_t>(i / kDrawn), d);
      steps(d[0], i);
      steps(d[1], i + kDrawn);
    }
  }
}

template <bool decoupled, class Args>
Status adam_step(Context* ctx, const Args* a) {
  if (a->param.dtype != DType::f32 || a->grad.dtype != DType::f32 || a->v.dtype != a->m.dtype)
    return Status::unsupported;
  if (!unit_stride(0, a->n, {a->param, a->m, a->v, a->grad})) return Status::unsupported;
  if (a->param.accumulate || a->m.accumulate || a->v.accumulate) return Status::unsupported;
  if (a->m.dtype == DType::bf16 && !a->key) return Status::unsupported;
  constexpr int64_t kPiece = 16384;
  return by_type(a->m.dtype, [&](auto type) {
    for_rows(ctx, (a->n + kPiece - 1) / kPiece, 1, [=](int64_t first, int64_t last) {
      adam_range<decoupled, decltype(type)>(a, first * kPiece, last * kPiece < a->n ? last * kPiece : a->n);
    });
    return Status::ok;
  });
}

}  // namespace
}  // namespace gristmill::GM_ISA
