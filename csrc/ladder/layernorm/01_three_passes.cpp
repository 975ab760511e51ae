// Idea: the definition: a pass for the mean, one for the variance, one for the result, a number at a time.
// Why: it is right; the sums are kept in double, so that nothing is lost in a chain of thousands of roundings.
// Look at: each addition waits some 3 cycles for the one before, and two of the three passes do nothing but add.
// Takes: float32, last stride 1; mean, rstd and bias may be null.
#include <cmath>

#include "kernels.h"

using namespace gristmill;

extern "C" Status layernorm_forward(Context*, const LayernormForwardArgs* a) {
  if (a->x.dtype != DType::f32 || a->out.dtype != DType::f32) return Status::unsupported;
  const float *w = static_cast<float*>(a->weight.data), *b = static_cast<float*>(a->bias.data);
  for (int64_t i = 0; i < a->rows; ++i) {
    const float* x = static_cast<float*>(a->x.data) + i * a->x.strides[0];
    float* out = static_cast<float*>(a->out.data) + i * a->out.strides[0];
    double sum = 0.0, squares = 0.0;
    for (int64_t j = 0; j < a->cols; ++j) sum += x[j];
    double mean = sum / a->cols;
    for (int64_t j = 0; j < a->cols; ++j) squares += (x[j] - mean) * (x[j] - mean);
    double rstd = 1.0 / std::sqrt(squares / a->cols + a->eps);
    for (int64_t j = 0; j < a->cols; ++j) {
      float y = static_cast<float>((x[j] - mean) * rstd * w[j] + (b ? b[j] : 0.0f));
      out[j] = a->out.accumulate ? out[j] + y : y;
    }
    if (a->mean.data) static_cast<float*>(a->mean.data)[i * a->mean.strides[0]] = static_cast<float>(mean);
    if (a->rstd.data) static_cast<float*>(a->rstd.data)[i * a->rstd.strides[0]] = static_cast<float>(rstd);
  }
  return Status::ok;
}
