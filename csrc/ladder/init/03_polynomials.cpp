// Idea: logarithm, sine and cosine become polynomials in float32.
// Why: a dozen fma where the library takes some 50 operations in double, tests its argument and handles what cannot
// come. Look at: the angle is measured from 45 degrees, so one small range serves all quadrants, and two bits are the
// signs. Takes: normal numbers, float32, contiguous.
#include <bit>
#include <cmath>

#include "core/rng.h"
#include "kernels.h"

using namespace gristmill;

namespace {

float polynomial(const float* k, int degree, float x) {
  float p = k[0];
  for (int i = 1; i <= degree; ++i) p = std::fma(p, x, k[i]);
  return p;
}

float minus_log(uint32_t word) {  // of (word + 1/2) / 2^32: the exponent, and a series in the mantissa
  constexpr float kLog[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                            -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                            2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
  uint32_t u = std::bit_cast<uint32_t>(std::fma(static_cast<float>(word), 0x1p-32f, 0x1p-33f)) - 0x3f3504f3u;
  float m = std::bit_cast<float>((u & 0x007fffffu) + 0x3f3504f3u) - 1.0f, z = m * m, p = polynomial(kLog, 8, m);
  float n = static_cast<float>(static_cast<int32_t>(u) >> 23);
  return std::fma(n, -0.693147181f, std::fma(z, 0.5f, -std::fma(p * m, z, m)));
}

void turn(uint32_t word, float* first, float* second) {  // sqrt(2) cos and sin of the angle, with their signs
  constexpr float kSin[] = {-3.59504484e-5f, 2.49001e-3f, -8.0745436e-2f, 7.85398185e-1f};
  constexpr float kCos[] = {3.53133444e-6f, -3.25942005e-4f, 1.5854327e-2f, -3.08425128e-1f, 1.0f};
  float x = static_cast<float>(static_cast<int32_t>(word << 2)) * 0x1p-31f, z = x * x;
  float s = polynomial(kSin, 3, z), c = polynomial(kCos, 4, z);
  *first = std::bit_cast<float>(std::bit_cast<uint32_t>(std::fma(-x, s, c)) ^ (word & 0x80000000u));
  *second = std::bit_cast<float>(std::bit_cast<uint32_t>(std::fma(x, s, c)) ^ (word << 1 & 0x80000000u));
}

}  // namespace

Status normal(Context*, const RandomArgs*) asm("random");  // C has another of that name

Status normal(Context*, const RandomArgs* a) {
  if (a->out.dtype != DType::f32 || a->distribution != static_cast<int32_t>(Distribution::normal))
    return Status::unsupported;
  float* out = static_cast<float*>(a->out.data);
  for (int64_t i = 0; i < a->n; i += 4) {
    Philox4 words = philox(a->key[0], a->key[1], static_cast<uint64_t>(i / 4));
    float z[4];
    for (int pair = 0; pair < 4; pair += 2) {
      float radius = std::sqrt(minus_log(words.x[pair]));
      turn(words.x[pair + 1], z + pair, z + pair + 1);
      z[pair] *= radius, z[pair + 1] *= radius;
    }
    for (int64_t k = 0; k < 4 && i + k < a->n; ++k) {
      float value = std::fma(z[k], a->b, a->a);
      out[i + k] = a->out.accumulate ? out[i + k] + value : value;
    }
  }
  return Status::ok;
}
