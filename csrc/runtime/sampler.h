// Draws the next token: temperature, then top_k, top_p and min_p on the tempered distribution. The draw is a pure
// function of (logits, options, seed, position), so a request can be replayed and does not depend on its batch.
#pragma once
#include "support.h"

namespace gristmill::runtime {

struct Sampling {
  float temperature = 1.0f;  // 0: the most probable token, the lowest id wins ties
  int32_t top_k = 0;         // keep the k most probable; 0: all
  float top_p = 1.0f;        // keep the fewest, most probable first, whose probabilities reach top_p (Holtzman 2019)
  float min_p = 0.0f;        // drop what is less probable than min_p times the most probable (Nguyen 2024)
  uint64_t seed = 0;
};

struct Candidate {
  float logit;
  int32_t id;
  double weight;  // exp((logit - max) / temperature)
};

// Draws from logits (V). `candidates` is scratch that grows to V once. False: an option is out of range, a logit is
// not a number, or memory is short; `error` says which.
[[nodiscard]] bool sample(const float* logits, int64_t V, const Sampling& options, int64_t position,
                          Array<Candidate>* candidates, int32_t* id, Error* error);

}  // namespace gristmill::runtime
