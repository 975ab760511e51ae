// Idea: the row is not kept either: maximum, sum and result run along with the keys, rescaled when the maximum grows.
// Why: one pass over the keys and no row, whatever S is. Milakov and Gimelshein, "Online normalizer", 2018.
// Look at: a rescaling and two exponentials for each key, one after the other: what the next step does once a block.
// Takes: float32, last stride 1, D up to 256.
#include "kernels.h"
#define GM_ISA ladder
#include "core/math.h"
using namespace gristmill;
using namespace gristmill::ladder;
namespace {
constexpr int64_t kMaxD = 256;

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

void query(const AttentionForwardArgs* a, int64_t b, int64_t t, int64_t h) {
  int64_t g = h / (a->H / a->G), n = seen(a, b, t);
  const float* q = at(a->q, b, t, h);
  float top = -INFINITY, sum = 0.0f, o[kMaxD] = {};
  for (int64_t s = 0; s < n; ++s) {
    const float *k = at(a->k, b, s, g), *v = at(a->v, b, s, g);
    vf dot = vzero();
    for (int64_t d = 0; d < a->D; d += W) dot = vfma(vload_n(q + d, a->D - d), vload_n(k + d, a->D - d), dot);
    float score = vsum(dot) * a->scale, higher = score > top ? score : top;
    float shrink = std::exp(top - higher), e = std::exp(score - higher);
    for (int64_t d = 0; d < a->D; d += W)
      vstore(o + d, vfma(vset(e), vload_n(v + d, a->D - d), vload(o + d) * vset(shrink)));
    sum = sum * shrink + e, top = higher;
  }
  if (a->lse.data)
    static_cast<float*>(a->lse.data)[b * a->lse.strides[0] + h * a->lse.strides[1] + t * a->lse.strides[2]] =
        top + std::log(sum);
  for (int64_t d = 0; d < a->D; d += W) {
    float* out = at(a->out, b, t, h) + d;
    vf y = n > 0 ? vload(o + d) / vset(sum) : vzero();
    vstore_n(out, a->out.accumulate ? vload_n(out, a->D - d) + y : y, a->D - d);
  }
}

}  // namespace

extern "C" Status attention_forward(Context*, const AttentionForwardArgs* a) {
  if (!takes(a) || a->D > kMaxD) return Status::unsupported;
  for (int64_t b = 0; b < a->B; ++b)
    for (int64_t h = 0; h < a->H; ++h)
      for (int64_t t = 0; t < a->T; ++t) query(a, b, t, h);
  return Status::ok;
}
