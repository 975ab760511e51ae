// Idea: the formula in three passes over the whole matrix of scores: q k^T, softmax, times v.
// Why: it reads as the paper does. Vaswani et al., "Attention is all you need", 2017, equation 1.
// Look at: a (T, S) matrix is written and read three times; at T = 1024 it has 4 MB for each head, and it grows with
// T^2. Takes: float32, last stride 1, T times S up to 4194304.
#include <cmath>

#include "kernels.h"

using namespace gristmill;

namespace {

constexpr int64_t kMost = 1 << 22;
float p[kMost];  // the matrix of one head; one call at a time

bool takes(const AttentionForwardArgs* a) {
  constexpr DType f32 = DType::f32;
  bool rows =
      a->D == 1 || (a->out.strides[3] == 1 && a->q.strides[3] == 1 && a->k.strides[3] == 1 && a->v.strides[3] == 1);
  return rows && a->q.dtype == f32 && a->k.dtype == f32 && a->v.dtype == f32 && a->out.dtype == f32 &&
         !a->lse.accumulate;
}
float* at(const View& v, int64_t b, int64_t t, int64_t h) {
  return static_cast<float*>(v.data) + b * v.strides[0] + t * v.strides[1] + h * v.strides[2];
}
// Number of keys that query t sees.
int64_t seen(const AttentionForwardArgs* a, int64_t b, int64_t t) {
  int64_t first = a->start.data ? static_cast<int64_t*>(a->start.data)[b * a->start.strides[0]] : a->S - a->T;
  int64_t n = a->causal ? first + t + 1 : a->S;
  return n < 0 ? 0 : n < a->S ? n : a->S;
}

}  // namespace

extern "C" Status attention_forward(Context*, const AttentionForwardArgs* a) {
  if (!takes(a) || a->T * a->S > kMost) return Status::unsupported;
  for (int64_t b = 0; b < a->B; ++b)
    for (int64_t h = 0; h < a->H; ++h) {
      int64_t g = h / (a->H / a->G);
      for (int64_t t = 0; t < a->T; ++t)
        for (int64_t s = 0; s < a->S; ++s) {
          float dot = 0.0f;
          for (int64_t d = 0; d < a->D; ++d) dot += at(a->q, b, t, h)[d] * at(a->k, b, s, g)[d];
          p[t * a->S + s] = s < seen(a, b, t) ? dot * a->scale : -INFINITY;
        }
      for (int64_t t = 0; t < a->T; ++t) {
        float top = -INFINITY, sum = 0.0f, *row = p + t * a->S;
        for (int64_t s = 0; s < a->S; ++s) top = std::fmax(top, row[s]);
        for (int64_t s = 0; s < a->S; ++s) sum += row[s] = top > -INFINITY ? std::exp(row[s] - top) : 0.0f;
        for (int64_t s = 0; s < a->S; ++s) row[s] = sum > 0.0f ? row[s] / sum : 0.0f;
        if (a->lse.data)
          static_cast<float*>(a->lse.data)[b * a->lse.strides[0] + h * a->lse.strides[1] + t * a->lse.strides[2]] =
              top + std::log(sum);
      }
      for (int64_t t = 0; t < a->T; ++t)
        for (int64_t d = 0; d < a->D; ++d) {
          float dot = 0.0f;
          for (int64_t s = 0; s < seen(a, b, t); ++s) dot += p[t * a->S + s] * at(a->v, b, s, g)[d];
          float* out = at(a->out, b, t, h) + d;
          *out = a->out.accumulate ? *out + dot : dot;
        }
    }
  return Status::ok;
}
