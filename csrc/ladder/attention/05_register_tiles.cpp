// Idea: 64 queries share a block of 64 keys, and both products are matrix products in tiles of registers.
// Why: a key is loaded once for 8 queries, and its scores lie side by side: no lanes are added up any more.
// Look at: the keys are turned while they are copied, so that the lanes run along the keys.
// Takes: float32, last stride 1, D up to 256, overwriting.
#include "kernels.h"
#define GM_ISA inline ladder
#include "core/math.h"
using namespace gristmill;
namespace {
constexpr int64_t kMaxD = 256, B = 64;  // B queries by B keys
alignas(64) thread_local float q[B * kMaxD], o[B * kMaxD], p[B * B], kt[kMaxD * B], v[B * kMaxD];
// c (m, n) += a (m, k) b (k, n) in tiles of 8 x 32, which divide m and n.
void product(float* c, int64_t ldc, const float* a, const float* b, int64_t ldb, int64_t m, int64_t n, int64_t k) {
  for (int64_t i = 0; i < m; i += 8)
    for (int64_t j = 0; j < n; j += 2 * W) {
      vf t[8][2];
      for (int r = 0; r < 16; ++r) t[r / 2][r % 2] = vload(c + (i + r / 2) * ldc + j + r % 2 * W);
      for (int64_t x = 0; x < k; ++x) {
        vf row[2] = {vload(b + x * ldb + j), vload(b + x * ldb + j + W)};
        for (int r = 0; r < 16; ++r) t[r / 2][r % 2] = vfma(vset(a[(i + r / 2) * k + x]), row[r % 2], t[r / 2][r % 2]);
      }
      for (int r = 0; r < 16; ++r) vstore(c + (i + r / 2) * ldc + j + r % 2 * W, t[r / 2][r % 2]);
    }
}
float* at(const View& x, int64_t b, int64_t t, int64_t h) {
  return static_cast<float*>(x.data) + b * x.strides[0] + t * x.strides[1] + h * x.strides[2];
}
int64_t seen(const AttentionForwardArgs* a, int64_t b, int64_t t) {  // how many keys query t sees
  int64_t first = a->start.data ? static_cast<int64_t*>(a->start.data)[b * a->start.strides[0]] : a->S - a->T;
  return a->causal && first + t + 1 < a->S ? first + t + 1 : a->S;
}
void queries(void* arg, int64_t block) {
  auto* a = static_cast<const AttentionForwardArgs*>(arg);
  int64_t blocks = (a->T + B - 1) / B, h = block / blocks % a->H, b = block / blocks / a->H, g = h / (a->H / a->G);
  int64_t t0 = block % blocks * B, n = a->T - t0 < B ? a->T - t0 : B, m = (n + 7) / 8 * 8, P = (a->D + 31) / 32 * 32;
  float top[B], sum[B] = {};
  for (int64_t i = 0; i < m; ++i)
    for (int64_t d = (top[i] = -INFINITY, 0); d < P; ++d)
      o[i * P + d] = 0.0f, q[i * P + d] = i < n && d < a->D ? at(a->q, b, t0 + i, h)[d] * a->scale : 0.0f;
  for (int64_t s0 = 0; s0 < a->S; s0 += B) {
    for (int64_t s = 0; s < B; ++s)
      for (int64_t d = 0; d < P; ++d)
        v[s * P + d] = s0 + s < a->S && d < a->D ? at(a->v, b, s0 + s, g)[d] : 0.0f,
                  kt[d * B + s] = s0 + s < a->S && d < a->D ? at(a->k, b, s0 + s, g)[d] : 0.0f;
    std::memset(p, 0, sizeof p);
    product(p, B, q, kt, B, m, B, P);
    for (int64_t i = 0; i < n; ++i) {
      float *row = p + i * B, before = top[i];
      int64_t keys = seen(a, b, t0 + i) - s0;
      for (int64_t s = keys > 0 ? keys : 0; s < B; ++s) row[s] = -INFINITY;
      vf best = vset(before), total = vzero();
      for (int64_t s = 0; s < B; s += W) best = vmax(best, vload(row + s));
      top[i] = vhmax(best);
      float minus = top[i] > -INFINITY ? top[i] : 0.0f, shrink = std::exp(before - minus);
      for (int64_t s = 0; s < B; s += W)
        vstore(row + s, vexp(vload(row + s) - vset(minus))), total = total + vload(row + s);
      sum[i] = sum[i] * shrink + vsum(total);
      for (int64_t d = 0; d < P; d += W) vstore(o + i * P + d, vload(o + i * P + d) * vset(shrink));
    }
    product(o, P, p, v, P, m, P, B);
  }
  for (int64_t i = 0; i < n; ++i) {
    const View& l = a->lse;
    int64_t j = b * l.strides[0] + h * l.strides[1] + (t0 + i) * l.strides[2];
    if (l.data) static_cast<float*>(l.data)[j] = top[i] + std::log(sum[i]);
    for (int64_t d = 0; d < a->D; ++d) at(a->out, b, t0 + i, h)[d] = sum[i] > 0.0f ? o[i * P + d] / sum[i] : 0.0f;
  }
}
}  // namespace
extern "C" Status attention_forward(Context*, const AttentionForwardArgs* a) {
  const View views[] = {a->out, a->q, a->k, a->v};
  for (const View& x : views)
    if (x.dtype != DType::f32 || x.accumulate || x.strides[3] != 1 || a->D > kMaxD) return Status::unsupported;
  for (int64_t i = 0; i < a->B * a->H * ((a->T + B - 1) / B); ++i) queries(const_cast<AttentionForwardArgs*>(a), i);
  return Status::ok;
}
