// The vectors a deployed file carries: prompts and the ids that greedy decoding must give.
#pragma once
#include "session.h"

namespace gristmill::runtime {

// Compares every stored vector that fits the model's context. *count: how many were compared (0: the file has none).
[[nodiscard]] bool selftest(const Model& model, int64_t* count, Error* error);

}  // namespace gristmill::runtime
