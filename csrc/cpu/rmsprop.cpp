// Gradients over the root of their average square. Tieleman and Hinton, "Lecture 6.5", 2012; centred as in Graves,
// 2013.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

void update(const RmspropArgs* a, int64_t first, int64_t last) {
  vf rate = vset(a->step[0]), scale = vset(a->step[1]), keep = vset(a->alpha), fresh = vset(1.0f - a->alpha);
  vf eps = vset(a->eps), decay = vset(a->weight_decay), mu = vset(a->momentum);
  auto *param = static_cast<float*>(a->param.data), *square = static_cast<float*>(a->square.data);
  auto *mean = static_cast<float*>(a->mean.data), *velocity = static_cast<float*>(a->velocity.data);
  auto* grad = static_cast<const float*>(a->grad.data);
  for (int64_t i = first; i < last; i += W) {
    int64_t n = last - i;
    vf p = vload_n(param + i, n), g = vfma(decay, p, vload_n(grad + i, n) * scale);
    vf s = vfma(keep, vload_n(square + i, n), fresh * g * g), spread = s;
    vstore_n(square + i, s, n);
    if (mean) {
      vf m = vfma(keep, vload_n(mean + i, n), fresh * g);
      vstore_n(mean + i, m, n);
      spread = vmax(vzero(), vfma(-m, m, s));  // rounding alone takes it below 0
    }
    vf move = g / (vsqrt(spread) + eps);
    if (velocity) {
      move = vfma(mu, vload_n(velocity + i, n), move);
      vstore_n(velocity + i, move, n);
    }
    vstore_n(param + i, vfma(-rate, move, p), n);
  }
}

}  // namespace

int64_t rmsprop_workspace(const RmspropArgs*, int32_t) { return 0; }

Status rmsprop(Context* ctx, const RmspropArgs* a) {
  for (const View& v : {a->param, a->square, a->mean, a->velocity, a->grad})
    if (v.data && (v.dtype != DType::f32 || v.accumulate)) return Status::unsupported;
  if (!unit_stride(0, a->n, {a->param, a->square, a->mean, a->velocity, a->grad})) return Status::unsupported;
  if (a->momentum != 0.0f && !a->velocity.data) return Status::unsupported;
  constexpr int64_t kPiece = 16384;
  for_rows(ctx, (a->n + kPiece - 1) / kPiece, 1, [=](int64_t first, int64_t last) {
    update(a, first * kPiece, last * kPiece < a->n ? last * kPiece : a->n);
  });
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
