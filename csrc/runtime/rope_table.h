// cos and sin of every rotation a model can use: angle = position * theta^(-2i/D) (Su et al. 2021, RoFormer).
// Training engine and runtime take the table from here, so that their bits agree.
#pragma once
#include <cstdint>

namespace gristmill::runtime {

// Fills cos and sin, each (positions, D/2) f32. Computed in double by +, -, *, / alone: libm's last bit differs between
// systems. factors (D/2) or null: every frequency is divided by its own (Llama 3's long context).
void rope_table(float theta, const float* factors, int64_t D, int64_t positions, float* cos, float* sin);

}  // namespace gristmill::runtime
