// The mean of (x - target)^2: partial sums of kReduceChunk elements, added in order.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
int64_t mse_forward_workspace(const MseForwardArgs* a, int32_t) {
  return (a->n + kReduceChunk - 1) / kReduceChunk * static_cast<int64_t>(sizeof(float));
}
int64_t mse_backward_workspace(const MseBackwardArgs*, int32_t) { return 0; }

Status mse_forward(Context* ctx, const MseForwardArgs* a) {
  if (a->loss.dtype != a->x.dtype || a->target.dtype != a->x.dtype) return Status::unsupported;
  if (!unit_stride(0, a->n, {a->x, a->target})) return Status::unsupported;
  if (ctx->workspace_bytes < mse_forward_workspace(a, 1)) return Status::workspace;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    const T *x = static_cast<const T*>(a->x.data), *target = static_cast<const T*>(a->target.data);
    float* sums = static_cast<float*>(ctx->workspace);
    for_rows(ctx, a->n, kReduceChunk, [=](int64_t first, int64_t last) {
      sums[first / kReduceChunk] = vsum(sum_vectors(last - first, [=](int64_t j, auto w, vf sum) {
        vf d = vload_n(x + first + j, w) - vload_n(target + first + j, w);
        return vfma(d, d, sum);
      }));
    });
    float total = 0.0f;
    for (int64_t c = 0; c * kReduceChunk < a->n; ++c) total += sums[c];
    put(static_cast<T*>(a->loss.data), vset(total / static_cast<float>(a->n)), 1, a->loss.accumulate);
    return Status::ok;
  });
}

// dx = 2 (x - target) dloss / n, and dtarget = -dx.
Status mse_backward(Context* ctx, const MseBackwardArgs* a) {
  DType t = a->x.dtype;
  if (a->target.dtype != t || a->dloss.dtype != t || (a->dx.data && a->dx.dtype != t)) return Status::unsupported;
  if (a->dtarget.data && a->dtarget.dtype != t) return Status::unsupported;
  if (!unit_stride(0, a->n, {a->dx, a->dtarget, a->x, a->target})) return Status::unsupported;
  return by_type(t, [&](auto type) {
    using T = decltype(type);
    const T *x = static_cast<const T*>(a->x.data), *target = static_cast<const T*>(a->target.data);
    float scale = 2.0f / static_cast<float>(a->n) * vsum(vload_n(static_cast<const T*>(a->dloss.data), 1));
    auto write = [=](const View& to, float times, int64_t first, int64_t last) {
      T* out = static_cast<T*>(to.data);
      bool add = to.accumulate;
      vf s = vset(times);
      each_vector(last - first, [=](int64_t i, auto w) {
        int64_t j = first + i;
        put(out + j, s * (vload_n(x + j, w) - vload_n(target + j, w)), w, add);
      });
    };
    for_rows(ctx, a->n, kTask, [=](int64_t first, int64_t last) {
      if (a->dx.data) write(a->dx, scale, first, last);
      if (a->dtarget.data) write(a->dtarget, -scale, first, last);
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
