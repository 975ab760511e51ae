// -log softmax(logits)[target] and its gradient, row by row, in float32. With smoothing s the target is (1 - s) one hot
// + s / V: the loss is lse - (1 - s) logits[target] - s mean(logits).
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

template <class T>
float log_sum_exp(const T* x, int64_t V) {
  vf best = vset(-INFINITY), sum = vzero();
  for (int64_t j = 0; j < V; j += W) {
    vf v = vload_n(x + j, V - j);
    float t[W];
    if (V - j < W) {
      vstore(t, v);
      for (int64_t l = V - j; l < W; ++l) t[l] = -INFINITY;
      v = vload(t);
    }
    best = vmax(best, v);
  }
  float top = vhmax(best);
  for (int64_t j = 0; j < V; j += W) {
    vf e = vexp(vload_n(x + j, V - j) - vset(top));
    float t[W];
    if (V - j < W) {
      vstore(t, e);
      for (int64_t l = V - j; l < W; ++l) t[l] = 0.0f;
      e = vload(t);
    }
    sum = sum + e;
  }
  float log[W];
  vstore(log, vlog(vset(vsum(sum))));
  return top + log[0];
}

template <class T>
float mean(const T* x, int64_t V) {
  vf sum = vzero();
  for (int64_t j = 0; j < V; j += W) sum = sum + vload_n(x + j, V - j);
  return vsum(sum) / static_cast<float>(V);
}

}  // namespace

int64_t cross_entropy_forward_workspace(const CrossEntropyForwardArgs*, int32_t) { return 0; }
int64_t cross_entropy_backward_workspace(const CrossEntropyBackwardArgs*, int32_t) { return 0; }

Status cross_entropy_forward(Context* ctx, const CrossEntropyForwardArgs* a) {
  if (!unit_stride(1, a->V, {a->logits}) || a->lse.accumulate) return Status::unsupported;
  return by_type(a->logits.dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(ctx, a->rows, 4, [=](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const T* x = row_of<const T>(a->logits, i);
        int32_t target = static_cast<const int32_t*>(a->targets.data)[i * a->targets.strides[0]];
        float lse = log_sum_exp(x, a->V), own[W] = {};
        if (target >= 0) vstore(own, vload_n(x + target, 1));
        if (a->lse.data) static_cast<float*>(a->lse.data)[i * a->lse.strides[0]] = lse;
        float loss = target >= 0 ? lse - own[0] : 0.0f;
        if (target >= 0 && a->smoothing > 0.0f)  // not by a factor 0: the logits may be infinite
          loss = lse - ((1.0f - a->smoothing) * own[0] + a->smoothing * mean(x, a->V));
        float* out = static_cast<float*>(a->losses.data) + i * a->losses.strides[0];
        *out = a->losses.accumulate ? *out + loss : loss;
      }
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
        int32_t target = static_cast<const int32_t*>(a->targets.data)[i * a->targets.strides[0]];
        if (target < 0) {  // not by a factor 0: the logits may be infinite
          T* d = row_of<T>(a->dlogits, i);
          for (int64_t j = 0; j < a->V && !a->dlogits.accumulate; ++j) d[j] = T{};
          continue;
        }
        float scale = static_cast<const float*>(a->dlosses.data)[i * a->dlosses.strides[0]];
        vf lse = vset(static_cast<const float*>(a->lse.data)[i * a->lse.strides[0]]);
        float spread = a->smoothing / static_cast<float>(a->V), hot = 1.0f - a->smoothing;
        for (int64_t j = 0; j < a->V; j += W) {
          int64_t n = a->V - j;
          vf p = vexp(vload_n(row_of<const T>(a->logits, i) + j, n) - lse);
          vf d = (a->smoothing > 0.0f ? p - vset(spread) : p) * vset(scale);
          if (target >= j && target < j + W) {
            float t[W];
            vstore(t, d);
            t[target - j] -= hot * scale;
            d = vload(t);
          }
          put(row_of<T>(a->dlogits, i) + j, d, n, a->dlogits.accumulate);
        }
      }
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
