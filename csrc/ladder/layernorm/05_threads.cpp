// Idea: chunks of 16 rows are handed out to the threads.
// Why: rows do not depend on each other; one core alone cannot ask for as much memory as there is to be had.
// Look at: chunks are small enough to share out evenly and large enough that handing them out costs nothing.
// Takes: float32, last stride 1; mean, rstd and bias may be null.
#include "kernels.h"

#define GM_ISA ladder
#include "core/simd.h"

using namespace gristmill;
using namespace gristmill::ladder;

namespace {

constexpr int64_t kRows = 16;

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

// Stores that do not fetch the line they overwrite; the address is a multiple of 64.
void past_the_caches(float* p, vf v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, v.r[0]);
#else
  vstore(p, v);
#endif
}

void rows_of(void* arg, int64_t chunk) {
  auto* a = static_cast<const LayernormForwardArgs*>(arg);
  const float *w = static_cast<float*>(a->weight.data), *b = static_cast<float*>(a->bias.data);
  for (int64_t i = chunk * kRows; i < a->rows && i < (chunk + 1) * kRows; ++i) {
    const float* x = static_cast<float*>(a->x.data) + i * a->x.strides[0];
    float* out = static_cast<float*>(a->out.data) + i * a->out.strides[0];
    bool aligned = !a->out.accumulate && reinterpret_cast<intptr_t>(out) % 64 == 0;
    Moments m = moments(x, a->cols, a->eps);
    keep(a->mean, i, m.mean);
    keep(a->rstd, i, m.rstd);
    for (int64_t j = 0; j < a->cols; j += W) {
      int64_t n = a->cols - j;
      vf y =
          vfma((vload_n(x + j, n) - vset(m.mean)) * vset(m.rstd), vload_n(w + j, n), b ? vload_n(b + j, n) : vzero());
      if (aligned && n >= W)
        past_the_caches(out + j, y);
      else
        vstore_n(out + j, a->out.accumulate ? vload_n(out + j, n) + y : y, n);
    }
  }
}

}  // namespace

extern "C" Status layernorm_forward(Context* ctx, const LayernormForwardArgs* a) {
  if (a->x.dtype != DType::f32 || a->out.dtype != DType::f32) return Status::unsupported;
  ctx->parallel_for(ctx, (a->rows + kRows - 1) / kRows, rows_of, const_cast<LayernormForwardArgs*>(a));
  return Status::ok;
}
