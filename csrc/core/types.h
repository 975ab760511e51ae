// The words every layer shares: element types, status codes, and the View a kernel sees of an array.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace gristmill {

enum class DType : int32_t { f32 = 0, bf16 = 1, i32 = 2, i64 = 3, u8 = 4 };

inline int64_t item_size(DType t) {
  switch (t) {
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16: return 2;
    case DType::i64: return 8;
    case DType::u8: return 1;
  }
  return 0;
}

inline const char* dtype_name(DType t) {
  switch (t) {
    case DType::f32: return "float32";
    case DType::bf16: return "bfloat16";
    case DType::i32: return "int32";
    case DType::i64: return "int64";
    case DType::u8: return "uint8";
  }
  return "?";
}

enum class Status : int32_t {
  ok = 0,
  unsupported = 1,  // this kernel does not take these dtypes, strides or options
  workspace = 2,    // the workspace handed over is smaller than <op>_workspace asked for
  device = 3,       // the device reported an error
};

inline const char* status_name(Status s) {
  switch (s) {
    case Status::ok: return "ok";
    case Status::unsupported: return "unsupported dtype, stride or option";
    case Status::workspace: return "workspace too small";
    case Status::device: return "device error";
  }
  return "unknown status";
}

// An array as a kernel sees it. Sizes stand once in the argument struct; strides count elements.
struct View {
  void* data;          // null: not given (optional input) or not wanted (optional output)
  const void* packed;  // same weight as laid out by this table's matmul_pack, or null
  int64_t strides[4];
  DType dtype;
  int32_t accumulate;  // outputs only: 0 overwrite, 1 add to what is there
};

// bfloat16 is the upper half of a float32; rounding is to nearest even, NaN stays NaN.
[[gnu::always_inline]] inline float bf16_to_f32(uint16_t h) {
  uint32_t u = static_cast<uint32_t>(h) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

[[gnu::always_inline]] inline uint16_t f32_to_bf16(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

}  // namespace gristmill
