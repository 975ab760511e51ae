// Idea: 64 keys at a time: their scores, one maximum, one rescaling, then exponentials sixteen at once.
// Why: what was done for each key is done once a block, and the exponentials are vectors.
// Look at: the dot product adds its lanes up for each key (vsum), which now costs more than the products.
//   Dao et al., "FlashAttention", 2022.
// Takes: float32, last stride 1, D up to 256.
#include "kernels.h"
#define GM_ISA ladder
#include "core/math.h"
using namespace gristmill;
using namespace gristmill::ladder;
namespace {
constexpr int64_t kMaxD = 256, kKeys = 64;

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
  float top = -INFINITY, sum = 0.0f, o[kMaxD] = {}, p[kKeys];
  for (int64_t s0 = 0; s0 < n; s0 += kKeys) {
    int64_t keys = n - s0 < kKeys ? n - s0 : kKeys;
    float higher = top;
    for (int64_t s = 0; s < kKeys; ++s) p[s] = -INFINITY;  // exp makes 0 of what is not there
    for (int64_t s = 0; s < keys; ++s) {
      const float* k = at(a->k, b, s0 + s, g);
      vf dot = vzero();
      for (int64_t d = 0; d < a->D; d += W) dot = vfma(vload_n(q + d, a->D - d), vload_n(k + d, a->D - d), dot);
      p[s] = vsum(dot) * a->scale;
      higher = p[s] > higher ? p[s] : higher;
    }
    vf total = vzero();
    for (int64_t s = 0; s < kKeys; s += W) {
      vf e = vexp(vload(p + s) - vset(higher));
      vstore(p + s, e);
      total = total + e;
    }
    float shrink = std::exp(top - higher);
    for (int64_t d = 0; d < a->D; d += W) {
      vf y = vload(o + d) * vset(shrink);
      for (int64_t s = 0; s < keys; ++s) y = vfma(vset(p[s]), vload_n(at(a->v, b, s0 + s, g) + d, a->D - d), y);
      vstore(o + d, y);
    }
    sum = sum * shrink + vsum(total), top = higher;
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
