// Idea: sixteen columns at a time, with a sum for each of the sixteen lanes.
// Why: an addition now adds sixteen numbers; lanes are added up once a row, by a tree.
// Look at: sixteen short sums lose less than one long one, so float32 is enough. The later passes find the row in the
//   first cache.
// Takes: float32, last stride 1; mean, rstd and bias may be null.
#include "kernels.h"

#define GM_ISA ladder
#include "core/simd.h"

using namespace gristmill;
using namespace gristmill::ladder;

namespace {

struct Moments {
  float mean, rstd;
};

Moments moments(const float* x, int64_t cols, float eps) {
  vf sum = vzero(), squares = vzero();
  for (int64_t j = 0; j < cols; j += W) sum = sum + vload_n(x + j, cols - j);
  float mean = vsum(sum) / static_cast<float>(cols);
  for (int64_t j = 0; j < cols; j += W) {
    vf d = vfirst(vload_n(x + j, cols - j) - vset(mean), cols - j, 0.0f);  // 0 past the end of the row
    squares = vfma(d, d, squares);
  }
  return Moments{mean, 1.0f / std::sqrt(vsum(squares) / static_cast<float>(cols) + eps)};
}

void keep(const View& v, int64_t i, float value) {
  if (v.data) static_cast<float*>(v.data)[i * v.strides[0]] = value;
}

}  // namespace

extern "C" Status layernorm_forward(Context*, const LayernormForwardArgs* a) {
  if (a->x.dtype != DType::f32 || a->out.dtype != DType::f32) return Status::unsupported;
  const float *w = static_cast<float*>(a->weight.data), *b = static_cast<float*>(a->bias.data);
  for (int64_t i = 0; i < a->rows; ++i) {
    const float* x = static_cast<float*>(a->x.data) + i * a->x.strides[0];
    float* out = static_cast<float*>(a->out.data) + i * a->out.strides[0];
    Moments m = moments(x, a->cols, a->eps);
    keep(a->mean, i, m.mean);
    keep(a->rstd, i, m.rstd);
    for (int64_t j = 0; j < a->cols; j += W) {
      int64_t n = a->cols - j;
      vf y =
          vfma((vload_n(x + j, n) - vset(m.mean)) * vset(m.rstd), vload_n(w + j, n), b ? vload_n(b + j, n) : vzero());
      vstore_n(out + j, a->out.accumulate ? vload_n(out + j, n) + y : y, n);
    }
  }
  return Status::ok;
}
