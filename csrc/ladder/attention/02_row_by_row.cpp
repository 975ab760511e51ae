// Idea: one query after the other: a row of scores is made, normalized and multiplied by v before the next.
// Why: a row is 4 KB at S = 1024 and stays in the first cache; no matrix exists, and what grows with T^2 is time alone.
// Look at: keys that a query may not see are never touched. The products are vectors along D; the exponentials come
//   one after the other.
// Takes: float32, last stride 1, S up to 65536.
#include "kernels.h"
#define GM_ISA ladder
#include "core/math.h"
using namespace gristmill;
using namespace gristmill::ladder;
namespace {

constexpr int64_t kMost = 65536;
thread_local float p[kMost];

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
  float top = -INFINITY, sum = 0.0f;
  for (int64_t s = 0; s < n; ++s) {
    vf dot = vzero();
    const float* k = at(a->k, b, s, g);
    for (int64_t d = 0; d < a->D; d += W) dot = vfma(vload_n(q + d, a->D - d), vload_n(k + d, a->D - d), dot);
    p[s] = vsum(dot) * a->scale;
    top = p[s] > top ? p[s] : top;
  }
  for (int64_t s = 0; s < n; ++s) sum += p[s] = std::exp(p[s] - top);
  if (a->lse.data)
    static_cast<float*>(a->lse.data)[b * a->lse.strides[0] + h * a->lse.strides[1] + t * a->lse.strides[2]] =
        top + std::log(sum);
  for (int64_t d = 0; d < a->D; d += W) {
    vf o = vzero();
    for (int64_t s = 0; s < n; ++s) o = vfma(vset(p[s]), vload_n(at(a->v, b, s, g) + d, a->D - d), o);
    float* out = at(a->out, b, t, h) + d;
    o = n > 0 ? o / vset(sum) : vzero();
    vstore_n(out, a->out.accumulate ? vload_n(out, a->D - d) + o : o, a->D - d);
  }
}

}  // namespace

extern "C" Status attention_forward(Context*, const AttentionForwardArgs* a) {
  if (!takes(a) || a->S > kMost) return Status::unsupported;
  for (int64_t b = 0; b < a->B; ++b)
    for (int64_t h = 0; h < a->H; ++h)
      for (int64_t t = 0; t < a->T; ++t) query(a, b, t, h);
  return Status::ok;
}
