// Idea: 64 blocks side by side: word w of all of them is an array, and every operation a loop over the blocks.
// Why: the compiler makes vectors of such loops, of Philox and of the polynomials alike: sixteen in the time of one.
// Look at: the arrangement, not the arithmetic: the functions are those of the step before.
// Takes: normal numbers, float32, contiguous.
#include <bit>

#include "kernels.h"
#define GM_ISA ladder
#include "core/simd.h"
using namespace gristmill;
using namespace gristmill::ladder;
namespace {
constexpr int B = 64;  // blocks side by side
template <int n>
float polynomial(const float (&k)[n], float x) {
  float p = k[0];
#pragma GCC unroll 8
  for (int i = 1; i < n; ++i) p = std::fma(p, x, k[i]);
  return p;
}
float minus_log(uint32_t word) {  // of (word + 1/2) / 2^32: the exponent, and a series in the mantissa
  constexpr float kLog[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                            -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                            2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
  uint32_t u = std::bit_cast<uint32_t>(std::fma(static_cast<float>(word), 0x1p-32f, 0x1p-33f)) - 0x3f3504f3u;
  float m = std::bit_cast<float>((u & 0x007fffffu) + 0x3f3504f3u) - 1.0f, z = m * m, p = polynomial(kLog, m);
  float n = static_cast<float>(static_cast<int32_t>(u) >> 23);
  return std::fma(n, -0.693147181f, std::fma(z, 0.5f, -std::fma(p * m, z, m)));
}
void turn(uint32_t word, float* first, float* second) {  // sqrt(2) cos and sin of the angle, with their signs
  constexpr float kSin[] = {-3.59504484e-5f, 2.49001e-3f, -8.0745436e-2f, 7.85398185e-1f};
  constexpr float kCos[] = {3.53133444e-6f, -3.25942005e-4f, 1.5854327e-2f, -3.08425128e-1f, 1.0f};
  float x = static_cast<float>(static_cast<int32_t>(word << 2)) * 0x1p-31f, z = x * x;
  float s = polynomial(kSin, z), c = polynomial(kCos, z);
  *first = std::bit_cast<float>(std::bit_cast<uint32_t>(std::fma(-x, s, c)) ^ (word & 0x80000000u));
  *second = std::bit_cast<float>(std::bit_cast<uint32_t>(std::fma(x, s, c)) ^ (word << 1 & 0x80000000u));
}
// B blocks: z[4 b + w] is the number of word w of block first + b.
void draw(float* z, const uint64_t* key, uint64_t first) {
  uint32_t c[4][B], k0 = static_cast<uint32_t>(key[0]), k1 = static_cast<uint32_t>(key[0] >> 32);
  for (uint32_t b = 0; b < B; ++b) {
    c[0][b] = static_cast<uint32_t>(first + b), c[1][b] = static_cast<uint32_t>((first + b) >> 32);
    c[2][b] = static_cast<uint32_t>(key[1]), c[3][b] = static_cast<uint32_t>(key[1] >> 32);
  }
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
    for (int b = 0; b < B; ++b) {
      uint64_t p0 = uint64_t{0xD2511F53u} * c[0][b], p1 = uint64_t{0xCD9E8D57u} * c[2][b];
      c[0][b] = static_cast<uint32_t>(p1 >> 32) ^ c[1][b] ^ k0, c[1][b] = static_cast<uint32_t>(p1);
      c[2][b] = static_cast<uint32_t>(p0 >> 32) ^ c[3][b] ^ k1, c[3][b] = static_cast<uint32_t>(p0);
    }
  for (int pair = 0; pair < 4; pair += 2) {
    float square[B], x[2][B];
    for (int b = 0; b < B; ++b) square[b] = minus_log(c[pair][b]), turn(c[pair + 1][b], &x[0][b], &x[1][b]);
    for (int b = 0; b < B; b += W) vstore(square + b, vsqrt(vload(square + b)));
    for (int b = 0; b < B; ++b) z[4 * b + pair] = x[0][b] * square[b], z[4 * b + pair + 1] = x[1][b] * square[b];
  }
}
}  // namespace

Status normal(Context*, const RandomArgs*) asm("random");  // C has another of that name

Status normal(Context*, const RandomArgs* a) {
  if (a->out.dtype != DType::f32 || a->distribution != static_cast<int32_t>(Distribution::normal))
    return Status::unsupported;
  float *out = static_cast<float*>(a->out.data), z[4 * B];
  for (int64_t i = 0; i < a->n; i += 4 * B) {
    draw(z, a->key, static_cast<uint64_t>(i) / 4);
    for (int64_t k = 0; k < 4 * B && i + k < a->n; k += W) {
      vf value = vfma(vload(z + k), vset(a->b), vset(a->a));
      vstore_n(out + i + k, a->out.accumulate ? vload_n(out + i + k, a->n - i - k) + value : value, a->n - i - k);
    }
  }
  return Status::ok;
}
