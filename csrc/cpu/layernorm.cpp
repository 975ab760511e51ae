// y = (x - mean) / sqrt(variance + eps) * weight + bias, by row. Ba, Kiros and Hinton, "Layer normalization", 2016.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

// v - mean, and 0 in the lanes past the end of a row.
inline vf centred(vf v, vf mean, int64_t n) {
  vf d = v - mean;
  if (n >= W) return d;
  float t[W] = {};
  vstore_n(t, d, n);
  return vload(t);
}

struct Moments {
  float mean, rstd;
};

// The variance from the differences: from the squares it would cancel where the mean is large.
template <class X>
Moments moments(const X* x, int64_t cols, float eps) {
  vf sum = vzero(), squares = vzero();
  for (int64_t j = 0; j < cols; j += W) sum = sum + vload_n(x + j, cols - j);
  float mean = vsum(sum) / static_cast<float>(cols);
  for (int64_t j = 0; j < cols; j += W) {
    vf d = centred(vload_n(x + j, cols - j), vset(mean), cols - j);
    squares = vfma(d, d, squares);
  }
  return Moments{mean, 1.0f / __builtin_sqrtf(vsum(squares) / static_cast<float>(cols) + eps)};
}

inline void keep(const View& v, int64_t i, float value) {
  if (v.data) static_cast<float*>(v.data)[i * v.strides[0]] = value;
}

inline float kept(const View& v, int64_t i) { return static_cast<const float*>(v.data)[i * v.strides[0]]; }

template <class DX, class DY, class X>
void backward_row(const LayernormBackwardArgs* a, int64_t i, float* dw, float* db) {
  const X* x = row_of<const X>(a->x, i);
  const DY* dy = row_of<const DY>(a->dout, i);
  DX* dx = row_of<DX>(a->dx, i);
  const float* w = static_cast<const float*>(a->weight.data);
  vf mean = vset(kept(a->mean, i)), r = vset(kept(a->rstd, i)), sum = vzero(), dot = vzero();
  for (int64_t j = 0; j < a->cols; j += W) {
    int64_t n = a->cols - j;
    vf hat = (vload_n(x + j, n) - mean) * r, d = vload_n(dy + j, n), g = d * vload_n(w + j, n);
    sum = sum + g;  // past the end of a row d and w are 0
    dot = vfma(g, hat, dot);
    put(dw + j, d * hat, n, true);
    put(db + j, d, n, true);
  }
  float size = static_cast<float>(a->cols);
  vf m = vset(vsum(sum) / size), c = vset(vsum(dot) / size);
  for (int64_t j = 0; j < a->cols; j += W) {
    int64_t n = a->cols - j;
    vf hat = (vload_n(x + j, n) - mean) * r, g = vload_n(dy + j, n) * vload_n(w + j, n);
    put(dx + j, (g - m - hat * c) * r, n, a->dx.accumulate);
  }
}

// out (cols) gets or is added the sum of rows `step` apart.
void add_up(const View& out, const float* partial, int64_t rows, int64_t step, int64_t cols) {
  for (int64_t j = 0; j < cols; j += W) {
    vf sum = vzero();
    for (int64_t i = 0; i < rows; ++i) sum = sum + vload_n(partial + i * step + j, cols - j);
    put(static_cast<float*>(out.data) + j, sum, cols - j, out.accumulate);
  }
}

int64_t chunks_of(const LayernormBackwardArgs* a) { return (a->rows + kRowChunk - 1) / kRowChunk; }

}  // namespace

int64_t layernorm_forward_workspace(const LayernormForwardArgs*, int32_t) { return 0; }

Status layernorm_forward(Context* ctx, const LayernormForwardArgs* a) {
  if (!unit_stride(1, a->cols, {a->out, a->x})) return Status::unsupported;
  if (!unit_stride(0, a->cols, {a->weight, a->bias})) return Status::unsupported;
  if (a->mean.accumulate || a->rstd.accumulate) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto in) {
    return by_type(a->out.dtype, [&](auto out) {
      using X = decltype(in);
      using Y = decltype(out);
      for_rows(ctx, a->rows, 16, [=](int64_t first, int64_t last) {
        const float* w = static_cast<const float*>(a->weight.data);
        const float* b = static_cast<const float*>(a->bias.data);
        for (int64_t i = first; i < last; ++i) {
          const X* x = row_of<const X>(a->x, i);
          Y* y = row_of<Y>(a->out, i);
          Moments m = moments(x, a->cols, a->eps);
          keep(a->mean, i, m.mean);
          keep(a->rstd, i, m.rstd);
          for (int64_t j = 0; j < a->cols; j += W) {
            int64_t n = a->cols - j;
            vf hat = (vload_n(x + j, n) - vset(m.mean)) * vset(m.rstd);
            put(y + j, vfma(hat, vload_n(w + j, n), b ? vload_n(b + j, n) : vzero()), n, a->out.accumulate);
          }
        }
      });
      return Status::ok;
    });
  });
}

// A row of partial sums of dweight and one of dbias per kRowChunk rows.
int64_t layernorm_backward_workspace(const LayernormBackwardArgs* a, int32_t) {
  return 2 * chunks_of(a) * a->cols * static_cast<int64_t>(sizeof(float));
}

// With g = w dy and h = (x - mean) r: dx = r (g - mean(g) - h mean(g h)), dweight = sum dy h, dbias = sum dy.
Status layernorm_backward(Context* ctx, const LayernormBackwardArgs* a) {
  if (!unit_stride(1, a->cols, {a->dx, a->dout, a->x})) return Status::unsupported;
  if (!unit_stride(0, a->cols, {a->dweight, a->dbias, a->weight})) return Status::unsupported;
  if (ctx->workspace_bytes < layernorm_backward_workspace(a, 1)) return Status::workspace;
  float* partial = static_cast<float*>(ctx->workspace);
  Status s = by_type(a->x.dtype, [&](auto in) {
    return by_type(a->dout.dtype, [&](auto dy) {
      return by_type(a->dx.dtype, [&](auto out) {
        for_rows(ctx, a->rows, kRowChunk, [=](int64_t first, int64_t last) {
          float* dw = partial + first / kRowChunk * 2 * a->cols;
          for (int64_t j = 0; j < 2 * a->cols; ++j) dw[j] = 0.0f;
          for (int64_t i = first; i < last; ++i)
            backward_row<decltype(out), decltype(dy), decltype(in)>(a, i, dw, dw + a->cols);
        });
        return Status::ok;
      });
    });
  });
  if (s != Status::ok) return s;
  add_up(a->dweight, partial, chunks_of(a), 2 * a->cols, a->cols);
  if (a->dbias.data) add_up(a->dbias, partial + a->cols, chunks_of(a), 2 * a->cols, a->cols);
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
