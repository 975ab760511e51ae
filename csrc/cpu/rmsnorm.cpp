// y = x / sqrt(mean(x^2) + eps) * weight. Zhang and Sennrich, "Root mean square layer normalization", 2019.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {

int64_t rmsnorm_forward_workspace(const RmsnormForwardArgs*, int32_t) { return 0; }

Status rmsnorm_forward(Context* ctx, const RmsnormForwardArgs* a) {
  if (!unit_stride(1, a->cols, {a->out, a->x}) || !unit_stride(0, a->cols, {a->weight})) return Status::unsupported;
  if (a->rstd.accumulate) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto in) {
    return by_type(a->out.dtype, [&](auto out) {
      using X = decltype(in);
      using Y = decltype(out);
      for_rows(ctx, a->rows, 16, [=](int64_t first, int64_t last) {
        const float* w = static_cast<const float*>(a->weight.data);
        for (int64_t i = first; i < last; ++i) {
          const X* x = row_of<const X>(a->x, i);
          Y* y = row_of<Y>(a->out, i);
          vf squares = vzero();
          for (int64_t j = 0; j < a->cols; j += W) {
            vf v = vload_n(x + j, a->cols - j);
            squares = vfma(v, v, squares);
          }
          float r = 1.0f / __builtin_sqrtf(vsum(squares) / static_cast<float>(a->cols) + a->eps);
          if (a->rstd.data) static_cast<float*>(a->rstd.data)[i * a->rstd.strides[0]] = r;
          for (int64_t j = 0; j < a->cols; j += W) {
            int64_t n = a->cols - j;
            put(y + j, vload_n(x + j, n) * vset(r) * vload_n(w + j, n), n, a->out.accumulate);
          }
        }
      });
      return Status::ok;
    });
  });
}

// One row of partial sums of dweight per kRowChunk rows.
int64_t rmsnorm_backward_workspace(const RmsnormBackwardArgs* a, int32_t) {
  return (a->rows + kRowChunk - 1) / kRowChunk * a->cols * 4;
}

// dx = r (w dy - x r^2 mean(w dy x)), dweight = sum over rows of dy x r.
Status rmsnorm_backward(Context* ctx, const RmsnormBackwardArgs* a) {
  if (!unit_stride(1, a->cols, {a->dx, a->dout, a->x})) return Status::unsupported;
  if (!unit_stride(0, a->cols, {a->dweight, a->weight})) return Status::unsupported;
  if (ctx->workspace_bytes < rmsnorm_backward_workspace(a, 1)) return Status::workspace;
  float* partial = static_cast<float*>(ctx->workspace);
  Status s = by_type(a->x.dtype, [&](auto in) {
    return by_type(a->dout.dtype, [&](auto dy_type) {
      return by_type(a->dx.dtype, [&](auto out) {
        using X = decltype(in);
        using DY = decltype(dy_type);
        using DX = decltype(out);
        for_rows(ctx, a->rows, kRowChunk, [=](int64_t first, int64_t last) {
          const float* w = static_cast<const float*>(a->weight.data);
          float* dw = partial + first / kRowChunk * a->cols;
          for (int64_t j = 0; j < a->cols; ++j) dw[j] = 0.0f;
          for (int64_t i = first; i < last; ++i) {
            const X* x = row_of<const X>(a->x, i);
            const DY* dy = row_of<const DY>(a->dout, i);
            DX* dx = row_of<DX>(a->dx, i);
            float r = static_cast<const float*>(a->rstd.data)[i * a->rstd.strides[0]];
            vf dot = vzero();
            for (int64_t j = 0; j < a->cols; j += W) {
              int64_t n = a->cols - j;
              vf v = vload_n(x + j, n), d = vload_n(dy + j, n);
              dot = vfma(d * vload_n(w + j, n), v, dot);
              put(dw + j, d * v * vset(r), n, true);
            }
            vf c = vset(vsum(dot) / static_cast<float>(a->cols) * r * r);
            for (int64_t j = 0; j < a->cols; j += W) {
              int64_t n = a->cols - j;
              vf g = vload_n(dy + j, n) * vload_n(w + j, n) - vload_n(x + j, n) * c;
              put(dx + j, g * vset(r), n, a->dx.accumulate);
            }
          }
        });
        return Status::ok;
      });
    });
  });
  if (s != Status::ok) return s;
  int64_t chunks = (a->rows + kRowChunk - 1) / kRowChunk;
  float* dw = static_cast<float*>(a->dweight.data);
  for (int64_t j = 0; j < a->cols; j += W) {
    int64_t n = a->cols - j;
    vf sum = vzero();
    for (int64_t c = 0; c < chunks; ++c) sum = sum + vload_n(partial + c * a->cols + j, n);
    put(dw + j, sum, n, a->dweight.accumulate);
  }
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
