// One case under one table: fresh memory, exact sizes (so that AddressSanitizer sees every step too far), one call.
#pragma once
#include <string>
#include <vector>

#include "backend.h"
#include "check/case_file.h"

namespace gristmill::check {

using Bytes = std::vector<unsigned char>;

struct Outcome {
  std::string problem;  // empty: right
  double worst = 0;     // largest error as a multiple of its bound
  Bytes results;        // the bytes of every buffer with a want, a NaN always the same one
};

Outcome replay(const Case& c, const Kernels* table, int32_t threads);

}  // namespace gristmill::check
