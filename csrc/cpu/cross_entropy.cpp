// -log softmax(logits)[target] and its gradient, row by row, in float32. With smoothing s the target is (1 - s) one hot
// + s / V: the loss is lse - (1 - s) logits[target] - s mean(logits).
#include "cpu/softmax.h"

namespace gristmill::GM_ISA {
namespace {

float& entry(const View& v, int64_t i) { return static_cast<float*>(v.data)[i * v.strides[0]]; }
int32_t target(const View& v, int64_t i) { return static_cast<const int32_t*>(v.data)[i * v.strides[0]]; }

template <class T>
void forward_row(const CrossEntropyForwardArgs* a, int64_t i) {
  const T* x = row_of<const T>(a->logits, i);
  int32_t own = target(a->targets, i);
  float lse = log_sum_exp(log_sum(x, a->V)), loss = 0.0f;
  if (own >= 0)
    loss = loss_of(lse, first_lane(vload_n(x + own, 1)), a->smoothing > 0.0f ? sum(x, a->V) : 0.0f, a->smoothing, a->V);
  if (a->lse.data) entry(a->lse, i) = lse;
  entry(a->losses, i) = a->losses.accumulate ? entry(a->losses, i) + loss : loss;
}

}  // namespace

int64_t cross_entropy_forward_workspace(const CrossEntropyForwardArgs*, int32_t) { return 0; }
int64_t cross_entropy_backward_workspace(const CrossEntropyBackwardArgs*, int32_t) { return 0; }

Status cross_entropy_forward(Context* ctx, const CrossEntropyForwardArgs* a) {
  if (!unit_stride(1, a->V, {a->logits}) || a->lse.accumulate) return Status::unsupported;
  return by_type(a->logits.dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(ctx, a->rows, 4, [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) forward_row<T>(a, i);
    });
    return Status::ok;
  });
}

// (softmax - one hot) * dloss; zero where the target is ignored.
Status cross_entropy_backward(Context* ctx, const CrossEntropyBackwardArgs* a) {
  if (a->dlogits.dtype != a->logits.dtype) return Status::unsupported;
  if (!unit_stride(1, a->V, {a->dlogits, a->logits})) return Status::unsupported;
  return by_type(a->logits.dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(ctx, a->rows, 4, [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        Target t = target_of(target(a->targets, i), entry(a->lse, i), entry(a->dlosses, i), a->smoothing, a->V);
        gradient_of(row_of<T>(a->dlogits, i), row_of<const T>(a->logits, i), t, 0, a->V, a->dlogits.accumulate);
      }
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
