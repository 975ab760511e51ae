// y = x / sqrt(mean(x^2) + eps) * weight. Zhang and Sennrich, "Root mean square layer normalization", 2019.
#include "cpu/blocks.h"

namespace gristmill::GM_ISA {
namespace {

template <class Y, class X>
void forward_row(const RmsnormForwardArgs* a, int64_t i) {
  using O = Mixed<Y, X>;
  const float* w = static_cast<const float*>(a->weight.data);
  const X* x = row_of<const X>(a->x, i);
  Y* y = row_of<Y>(a->out, i);
  float squares = sum_of_blocks<O>(a->cols, [](vf s, vf v) { return vfma(v, v, s); }, x);
  float rstd = 1.0f / __builtin_sqrtf(squares / static_cast<float>(a->cols) + a->eps);
  if (a->rstd.data) static_cast<float*>(a->rstd.data)[i * a->rstd.strides[0]] = rstd;
  vf r = vset(rstd);
  bool add = a->out.accumulate;
  each_block<O>(a->cols, [=](int64_t j, auto n) {
    bput<O>(y + j, each_of<O>([=](vf v, vf w) { return v * r * w; }, bload<O>(x + j, n), bload<O>(w + j, n)), n, add);
  });
}

// dx = r (w dy - x c), and the row's part of dweight.
template <class DX, class DY, class X>
void backward_row(const RmsnormBackwardArgs* a, int64_t i, float* dw) {
  using O = Mixed<DX, DY, X>;
  const float* w = static_cast<const float*>(a->weight.data);
  const X* x = row_of<const X>(a->x, i);
  const DY* dy = row_of<const DY>(a->dout, i);
  DX* dx = row_of<DX>(a->dx, i);
  float dot[1], rstd = static_cast<const float*>(a->rstd.data)[i * a->rstd.strides[0]];
  sum_blocks<O>(dot, a->cols, [=](int64_t j, auto n, Vectors<O>(&s)[1]) {
    auto f = [](vf d, vf w, vf v, vf s) { return vfma(d * w, v, s); };
    s[0] = each_of<O>(f, bload<O>(dy + j, n), bload<O>(w + j, n), bload<O>(x + j, n), s[0]);
  });
  vf r = vset(rstd), c = vset(-(dot[0] / static_cast<float>(a->cols) * rstd * rstd));
  bool add = a->dx.accumulate;
  each_block<O>(a->cols, [=](int64_t j, auto n) {
    Vectors<O> v = bload<O>(x + j, n), d = bload<O>(dy + j, n);
    auto f = [=](vf v, vf d, vf w) { return vfma(v, c, d * w) * r; };
    bput<O>(dx + j, each_of<O>(f, v, d, bload<O>(w + j, n)), n, add);
    auto part = [=](vf v, vf d, vf s) { return vfma(d, v * r, s); };
    bstore<O>(dw + j, each_of<O>(part, v, d, bload<O>(dw + j, n)), n);
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
        for (int64_t i = first; i < last; ++i) forward_row<Y, X>(a, i);
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
          for (int64_t i = first; i < last; ++i) backward_row<DX, DY, X>(a, i, dw);
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
