// Idea: the formula: of two random words a radius sqrt(-2 log u) and an angle, hence two normal numbers.
// Why: Box and Muller, "A note on the generation of random normal deviates", 1958, in double.
// Look at: the words come from a counter (Philox), not from a state: number i is a function of seed, stream and i
// alone.
//   Here each number computes four words and two numbers, and keeps one.
// Takes: normal numbers, float32, contiguous.
#include <cmath>

#include "core/rng.h"
#include "kernels.h"

using namespace gristmill;

namespace {

// The first word gives the radius, the second an angle from 0 to 90 degrees and two signs.
void box_muller(uint32_t first, uint32_t second, double* z) {
  double u = std::fma(static_cast<float>(first), 0x1p-32f, 0x1p-33f), radius = std::sqrt(-2.0 * std::log(u));
  double angle = M_PI / 4 * (1.0 + static_cast<float>(static_cast<int32_t>(second << 2)) * 0x1p-31);
  z[0] = (second >> 31 & 1 ? -1 : 1) * radius * std::cos(angle);
  z[1] = (second >> 30 & 1 ? -1 : 1) * radius * std::sin(angle);
}

}  // namespace

Status normal(Context*, const RandomArgs*) asm("random");  // C has another of that name

Status normal(Context*, const RandomArgs* a) {
  if (a->out.dtype != DType::f32 || a->distribution != static_cast<int32_t>(Distribution::normal))
    return Status::unsupported;
  float* out = static_cast<float*>(a->out.data);
  for (int64_t i = 0; i < a->n; ++i) {
    Philox4 words = philox(a->key[0], a->key[1], static_cast<uint64_t>(i / 4));
    double z[2];
    box_muller(words.x[i % 4 / 2 * 2], words.x[i % 4 / 2 * 2 + 1], z);
    float value = static_cast<float>(a->a + a->b * z[i % 2]);
    out[i] = a->out.accumulate ? out[i] + value : value;
  }
  return Status::ok;
}
