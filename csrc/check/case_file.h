// The file of cases that kernel_check replays: calls of kernels with the results float64 gave. tests/case_file.py,
// which writes it, says what stands where.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/types.h"

namespace gristmill::check {

struct Buffer {
  DType dtype;
  int64_t elements;
  const unsigned char* bytes;  // into the file
  int64_t size() const { return elements * item_size(dtype); }
};

enum class Kind : uint8_t { integer = 0, real = 1, view = 2, pointer = 3 };

struct Field {
  std::string name;
  Kind kind;
  int64_t integer;
  double real;
  int32_t buffer;  // -1: null
  int64_t offset, strides[4];
  int32_t accumulate;
};

struct Want {
  int32_t buffer;
  std::vector<double> values, bounds;  // one for each element; bound NaN: must not change
};

struct Case {
  std::string entry, label;
  bool same_bits;
  std::vector<Buffer> buffers;
  std::vector<Field> fields;
  std::vector<Want> wants;
};

// The bytes must outlive the cases. An empty string, or what is wrong with the file and at which byte.
std::string read_cases(const std::vector<unsigned char>& file, uint64_t abi, std::vector<Case>* cases);

}  // namespace gristmill::check
