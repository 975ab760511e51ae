// Idea: four vectors of sums instead of one.
// Why: an addition waits for the one before on the same sum, 3 cycles, an fma 4; four sums keep the unit busy.
// Look at: what limits now. Of a matrix that is larger than the caches it is memory, and this step changes nothing; try
//   --shape 64x1024, which fits into the second cache.
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
  constexpr int kSums = 4;
  vf sum[kSums] = {vzero(), vzero(), vzero(), vzero()}, squares[kSums] = {vzero(), vzero(), vzero(), vzero()};
  for (int64_t j = 0; j < cols; j += kSums * W)
    for (int s = 0; s < kSums; ++s)
      if (j + s * W < cols) sum[s] = sum[s] + vload_n(x + j + s * W, cols - j - s * W);
  vf mean = vset(vsum(sum[0] + sum[1] + (sum[2] + sum[3])) / static_cast<float>(cols));
  for (int64_t j = 0; j < cols; j += kSums * W)
    for (int s = 0; s < kSums; ++s)
      if (int64_t n = cols - j - s * W; n > 0) {
        vf d = vfirst(vload_n(x + j + s * W, n) - mean, n, 0.0f);  // 0 past the end of the row
        squares[s] = vfma(d, d, squares[s]);
      }
  float variance = vsum(squares[0] + squares[1] + (squares[2] + squares[3])) / static_cast<float>(cols);
  float m[W];
  vstore(m, mean);
  return Moments{m[0], 1.0f / std::sqrt(variance + eps)};
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
