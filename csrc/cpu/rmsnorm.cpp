// y = x / sqrt(mean(x^2) + eps) * weight. Zhang and Sennrich, "Root mean square layer normalization", 2019.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

// R rows: dx = r (w dy - x c), and their part of dweight in order.
template <int R, class DX, class DY, class X>
void backward_rows(const RmsnormBackwardArgs* a, int64_t first, float* dw) {
  const float* w = static_cast<const float*>(a->weight.data);
  float r[R], c[R];
  for (int i = 0; i < R; ++i) {
    const X* x = row_of<const X>(a->x, first + i);
    const DY* dy = row_of<const DY>(a->dout, first + i);
    vf dot = sum_vectors(a->cols, [=](int64_t j, auto n, vf s) {
      return vfma(vload_n(dy + j, n) * vload_n(w + j, n), vload_n(x + j, n), s);
    });
    r[i] = static_cast<const float*>(a->rstd.data)[(first + i) * a->rstd.strides[0]];
    c[i] = vsum(dot) / static_cast<float>(a->cols) * r[i] * r[i];
  }
  const X* x = row_of<const X>(a->x, first);
  const DY* dy = row_of<const DY>(a->dout, first);
  DX* dx = row_of<DX>(a->dx, first);
  int64_t sx = a->x.strides[0], sy = a->dout.strides[0], sd = a->dx.strides[0];  // a vector store may alias *a
  bool add = a->dx.accumulate;
  each_vector(a->cols, [=](int64_t j, auto n) {
    vf wj = vload_n(w + j, n), dwj = vload_n(dw + j, n);
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      vf v = vload_n(x + i * sx + j, n), d = vload_n(dy + i * sy + j, n);
      dwj = vfma(d, v * vset(r[i]), dwj);
      put(dx + i * sd + j, vfma(v, vset(-c[i]), d * wj) * vset(r[i]), n, add);
    }
    vstore_n(dw + j, dwj, n);
  });
}

}  // namespace

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
          vf squares = sum_vectors(a->cols, [=](int64_t j, auto n, vf sum) {
            vf v = vload_n(x + j, n);
            return vfma(v, v, sum);
          });
          float r = 1.0f / __builtin_sqrtf(vsum(squares) / static_cast<float>(a->cols) + a->eps);
          if (a->rstd.data) static_cast<float*>(a->rstd.data)[i * a->rstd.strides[0]] = r;
          bool add = a->out.accumulate;
          each_vector(a->cols,
                      [=](int64_t j, auto n) { put(y + j, vload_n(x + j, n) * vset(r) * vload_n(w + j, n), n, add); });
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
          float* dw = partial + first / kRowChunk * a->cols;
          for (int64_t j = 0; j < a->cols; ++j) dw[j] = 0.0f;
          int64_t i = first;
          for (; i + 4 <= last; i += 4) backward_rows<4, DX, DY, X>(a, i, dw);
          for (; i < last; ++i) backward_rows<1, DX, DY, X>(a, i, dw);
        });
        return Status::ok;
      });
    });
  });
  if (s != Status::ok) return s;
  add_up(ctx, a->dweight, partial, (a->rows + kRowChunk - 1) / kRowChunk, a->cols, a->cols);
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
