// y = (x - mean) / sqrt(variance + eps) * weight + bias, by row. Ba, Kiros and Hinton, "Layer normalization", 2016.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

struct Moments {
  float mean, rstd;
};

// The variance from the differences: from the squares it would cancel where the mean is large.
template <class X>
Moments moments(const X* x, int64_t cols, float eps) {
  float mean = vsum(sum_vectors(cols, [=](int64_t j, auto n, vf sum) { return sum + vload_n(x + j, n); })) /
               static_cast<float>(cols);
  vf squares = sum_vectors(cols, [=](int64_t j, auto n, vf sum) {
    vf d = vfirst(vload_n(x + j, n) - vset(mean), n, 0.0f);
    return vfma(d, d, sum);
  });
  return Moments{mean, 1.0f / __builtin_sqrtf(vsum(squares) / static_cast<float>(cols) + eps)};
}

inline void keep(const View& v, int64_t i, float value) {
  if (v.data) static_cast<float*>(v.data)[i * v.strides[0]] = value;
}

inline float kept(const View& v, int64_t i) { return static_cast<const float*>(v.data)[i * v.strides[0]]; }

// A row of the backward pass: dx = r (g - m - hat c).
struct Row {
  float mean, r, m, c;
};

template <class DY, class X>
Row row_sums(const LayernormBackwardArgs* a, int64_t i) {
  const X* x = row_of<const X>(a->x, i);
  const DY* dy = row_of<const DY>(a->dout, i);
  const float* w = static_cast<const float*>(a->weight.data);
  Row row{kept(a->mean, i), kept(a->rstd, i), 0.0f, 0.0f};
  vf mean = vset(row.mean), r = vset(row.r);  // past the end of a row dy and w are 0
  vf sum =
      sum_vectors(a->cols, [=](int64_t j, auto n, vf s) { return vfma(vload_n(dy + j, n), vload_n(w + j, n), s); });
  vf dot = sum_vectors(a->cols, [=](int64_t j, auto n, vf s) {
    return vfma(vload_n(dy + j, n) * vload_n(w + j, n), (vload_n(x + j, n) - mean) * r, s);
  });
  row.m = vsum(sum) / static_cast<float>(a->cols), row.c = vsum(dot) / static_cast<float>(a->cols);
  return row;
}

// R rows: dx, and their part of dweight and dbias in order.
template <int R, class DX, class DY, class X>
void backward_rows(const LayernormBackwardArgs* a, int64_t first, float* dw, float* db) {
  Row row[R];
  for (int i = 0; i < R; ++i) row[i] = row_sums<DY, X>(a, first + i);
  const float* w = static_cast<const float*>(a->weight.data);
  const X* x = row_of<const X>(a->x, first);
  const DY* dy = row_of<const DY>(a->dout, first);
  DX* dx = row_of<DX>(a->dx, first);
  int64_t sx = a->x.strides[0], sy = a->dout.strides[0], sd = a->dx.strides[0];  // a vector store may alias *a
  bool add = a->dx.accumulate;
  each_vector(a->cols, [=](int64_t j, auto n) {
    vf wj = vload_n(w + j, n), dwj = vload_n(dw + j, n), dbj = vload_n(db + j, n);
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      vf r = vset(row[i].r), d = vload_n(dy + i * sy + j, n);
      vf hat = (vload_n(x + i * sx + j, n) - vset(row[i].mean)) * r;
      dwj = vfma(d, hat, dwj), dbj = dbj + d;
      vf g = vfma(hat, vset(-row[i].c), vfma(d, wj, vset(-row[i].m)));
      put(dx + i * sd + j, g * r, n, add);
    }
    vstore_n(dw + j, dwj, n), vstore_n(db + j, dbj, n);
  });
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
          bool add = a->out.accumulate;
          auto each = [=](auto bias) {
            each_vector(a->cols, [=](int64_t j, auto n) {
              vf hat = (vload_n(x + j, n) - vset(m.mean)) * vset(m.rstd);
              put(y + j, vfma(hat, vload_n(w + j, n), bias(j, n)), n, add);
            });
          };
          b ? each([=](int64_t j, auto n) { return vload_n(b + j, n); }) : each([=](int64_t, auto) { return vzero(); });
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
          using DX = decltype(out);
          using DY = decltype(dy);
          using X = decltype(in);
          int64_t i = first;
          for (; i + 4 <= last; i += 4) backward_rows<4, DX, DY, X>(a, i, dw, dw + a->cols);
          for (; i < last; ++i) backward_rows<1, DX, DY, X>(a, i, dw, dw + a->cols);
        });
        return Status::ok;
      });
    });
  });
  if (s != Status::ok) return s;
  add_up(ctx, a->dweight, partial, chunks_of(a), 2 * a->cols, a->cols);
  if (a->dbias.data) add_up(ctx, a->dbias, partial + a->cols, chunks_of(a), 2 * a->cols, a->cols);
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
