// float16 to float32, exactly.
#pragma once
#include <cstdint>
#include <cstring>

namespace gristmill::runtime {

// The exponent's bits moved to their place are 112 too small, also those of a subnormal: one exact product mends both.
// Infinity and NaN need the exponent of all ones; a NaN keeps its payload.
inline float f16_to_f32(uint16_t h) {
  uint32_t bits = static_cast<uint32_t>(h & 0x7fff) << 13;
  float value;
  std::memcpy(&value, &bits, 4);
  value *= 0x1p112f;
  std::memcpy(&bits, &value, 4);
  bits |= ((h & 0x7c00) == 0x7c00 ? 0x7f800000u : 0u) | static_cast<uint32_t>(h & 0x8000) << 16;
  std::memcpy(&value, &bits, 4);
  return value;
}

}  // namespace gristmill::runtime
