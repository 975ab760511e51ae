// Idea: q, k and v stay bfloat16; vdpbf16ps adds two of their products to each of sixteen float32 sums.
// Why: an fma is one product a lane, this is two; the copies of keys and values are half as many bytes.
// Look at: pairs run along D, then along the keys. The weights are rounded to bfloat16 before they meet v, their sum
// not. Takes: bfloat16 arrays (lse float32), last stride 1, D up to 256, overwriting; a processor with AVX-512 bf16.
#include "kernels.h"
#define GM_ISA inline ladder
#include "core/math.h"
using namespace gristmill;
#if !defined(__AVX512BF16__)
extern "C" Status attention_forward(Context*, const AttentionForwardArgs*) { return Status::unsupported; }
#else
constexpr int64_t kMaxD = 256, B = 64;  // B queries by B keys
alignas(64) static thread_local float o[B * kMaxD], p[B * B];
alignas(64) static thread_local uint16_t q[B * kMaxD], e[B * B], rows[B * kMaxD], kt[kMaxD * B], v[B * kMaxD];
// c (B, n) += a (B, k) b (k, n) in tiles of 8 x 32, which divide B and n; rows 2 x and 2 x + 1 of b as one of pairs.
static void product(float* c, const uint16_t* a, const uint16_t* b, int64_t n, int64_t k) {
  for (int64_t i = 0; i < B; i += 8)
    for (int64_t j = 0; j < n; j += 2 * W) {
      __m512 t[8][2];
      for (int r = 0; r < 16; ++r) t[r / 2][r % 2] = _mm512_loadu_ps(c + (i + r / 2) * n + j + r % 2 * W);
      for (int64_t x = 0; x < k; x += 2)
        for (int32_t r = 0, pair; r < 16; ++r) {
          auto row = (__m512bh)_mm512_loadu_si512(b + x * n + 2 * (j + r % 2 * W));
          std::memcpy(&pair, a + (i + r / 2) * k + x, 4);
          t[r / 2][r % 2] = _mm512_dpbf16_ps(t[r / 2][r % 2], (__m512bh)_mm512_set1_epi32(pair), row);
        }
      for (int r = 0; r < 16; ++r) _mm512_storeu_ps(c + (i + r / 2) * n + j + r % 2 * W, t[r / 2][r % 2]);
    }
}
static uint16_t* at(const View& x, int64_t b, int64_t t, int64_t h) {
  return static_cast<uint16_t*>(x.data) + b * x.strides[0] + t * x.strides[1] + h * x.strides[2];
}
static void queries(void* arg, int64_t block) {
  auto* a = static_cast<const AttentionForwardArgs*>(arg);
  int64_t blocks = (a->T + B - 1) / B, h = block / blocks % a->H, b = block / blocks / a->H, g = h / (a->H / a->G);
  int64_t t0 = (blocks - 1 - block % blocks) * B, n = a->T - t0 < B ? a->T - t0 : B, P = (a->D + 31) / 32 * 32;
  int64_t first = a->start.data ? static_cast<int64_t*>(a->start.data)[b * a->start.strides[0]] : a->S - a->T;
  auto seen = [=](int64_t t) { return a->causal && first + t + 1 < a->S ? first + t + 1 : a->S; };  // keys, by query t
  auto copy = [=](uint16_t* to, const View& x, int64_t t, int64_t g, int64_t n) {  // n rows of B, 0 past them and D
    std::memset(to, 0, static_cast<size_t>(2 * B * P));
    for (int64_t i = 0; i < n && i < B; ++i) std::memcpy(to + i * P, at(x, b, t + i, g), static_cast<size_t>(2 * a->D));
  };
  float top[B] = {}, sum[B] = {};
  std::memset(o, 0, sizeof o), copy(q, a->q, t0, h, n);
  for (int64_t s0 = 0; s0 < seen(t0 + n - 1); s0 += B) {
    copy(rows, a->k, s0, g, a->S - s0);
    for (int64_t d = 0; d < P; d += 2)
      for (int64_t s = 0; s < B; ++s) std::memcpy(kt + d * B + 2 * s, rows + s * P + d, 4);
    copy(rows, a->v, s0, g, a->S - s0);
    for (int64_t s = 0; s < B * P; s += 2 * P)
      for (int64_t d = 0; d < P; ++d) v[s + 2 * d] = rows[s + d], v[s + 2 * d + 1] = rows[s + P + d];
    std::memset(p, 0, sizeof p), product(p, q, kt, B, P);
    for (int64_t i = 0; i < n; ++i) {
      float *row = p + i * B, before = s0 > 0 ? top[i] : -INFINITY;
      vf best = vset(before), total = vzero();
      for (int64_t s = 0, keys = seen(t0 + i) - s0; s < B; ++s) row[s] = s < keys ? row[s] * a->scale : -INFINITY;
      for (int64_t s = 0; s < B; s += W) best = vmax(best, vload(row + s));
      float minus = (top[i] = vhmax(best)) > -INFINITY ? top[i] : 0.0f, shrink = std::exp(before - minus);
      for (int64_t s = 0; s < B; s += W)
        best = vexp(vload(row + s) - vset(minus)), total = total + best, vstore(e + i * B + s, best);
      sum[i] = sum[i] * shrink + vsum(total);
      for (int64_t d = 0; d < P; d += W) vstore(o + i * P + d, vload(o + i * P + d) * vset(shrink));
    }
    product(o, e, v, P, B);
  }
  for (int64_t i = 0; i < n; ++i) {
    const int64_t *x = a->lse.strides, j = b * x[0] + h * x[1] + (t0 + i) * x[2];
    if (a->lse.data) static_cast<float*>(a->lse.data)[j] = top[i] + std::log(sum[i]);
    for (int64_t d = 0; d < a->D; d += W)
      vstore_n(at(a->out, b, t0 + i, h) + d, sum[i] > 0.0f ? vload(o + i * P + d) / vset(sum[i]) : vzero(), a->D - d);
  }
}
extern "C" Status attention_forward(Context* ctx, const AttentionForwardArgs* a) {
  for (const View views[] = {a->out, a->q, a->k, a->v}; const View& x : views)
    if (x.dtype != DType::bf16 || x.accumulate || x.strides[3] != 1 || a->D > kMaxD) return Status::unsupported;
  ctx->parallel_for(ctx, a->B * a->H * ((a->T + B - 1) / B), queries, const_cast<AttentionForwardArgs*>(a));
  return Status::ok;
}
#endif
