#include "sampler.h"

#include <algorithm>
#include <cmath>

#include "../core/rng.h"

namespace gristmill::runtime {
namespace {

// exp(x) for x <= 0 to about 1e-15: x = k ln2 + r, |r| <= ln2 / 2, Taylor to r^13. Not libm's, whose last bit
// differs between systems: a seed must draw the same token everywhere.
double exp_nonpositive(double x) {
  if (x < -700.0) return 0.0;
  const double k = std::floor(x * 1.4426950408889634 + 0.5);
  const double r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;  // ln2 in two parts
  double sum = 1.0;
  for (int n = 13; n >= 1; --n) sum = 1.0 + sum * r / n;
  return std::ldexp(sum, static_cast<int>(k));
}

constexpr uint64_t kSamplingStream = 0x73616d706c65;  // "sample"

double uniform(uint64_t seed, int64_t position) {  // 53 bits in [0, 1)
  const Philox4 words = philox(seed, kSamplingStream, static_cast<uint64_t>(position));
  const uint64_t bits = uint64_t{words.x[0]} << 21 ^ words.x[1] >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

bool more_probable(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

bool check(const float* logits, int64_t V, const Sampling& o, Error* error) {
  if (!(o.temperature >= 0.0f) || o.temperature > 1e6f)
    return fail(error, -1, "temperature is %g, 0 to 1e6 is allowed", static_cast<double>(o.temperature));
  if (o.top_k < 0) return fail(error, -1, "top_k is %d, 0 (all) or more is allowed", o.top_k);
  if (!(o.top_p > 0.0f && o.top_p <= 1.0f))
    return fail(error, -1, "top_p is %g, above 0 to 1 is allowed", static_cast<double>(o.top_p));
  if (!(o.min_p >= 0.0f && o.min_p <= 1.0f))
    return fail(error, -1, "min_p is %g, 0 to 1 is allowed", static_cast<double>(o.min_p));
  if (V < 1) return fail(error, -1, "there are no logits");
  for (int64_t i = 0; i < V; ++i)
    if (std::isnan(logits[i]) || logits[i] == INFINITY)
      return fail(error, -1, "logit of token %lld is %g: the model is damaged", static_cast<long long>(i),
                  static_cast<double>(logits[i]));
  return true;
}

// Candidates that survive top_k, top_p and min_p move to the front, most probable first where order matters;
// returns their number and their total weight.
int64_t restrict_to(Array<Candidate>* candidates, const Sampling& o, double* total) {
  Candidate* c = candidates->data();
  int64_t n = candidates->size();
  if (o.top_k > 0 && o.top_k < n) {
    std::nth_element(c, c + o.top_k, c + n, more_probable);
    n = o.top_k;
    std::sort(c, c + n, more_probable);  // the same sums whatever order nth_element left
  }
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += c[i].weight;
  if (o.top_p < 1.0f) {
    // Tokens below (1 - top_p) / n of the total have less than 1 - top_p together: the nucleus never reaches them.
    const double floor = sum * (1.0 - static_cast<double>(o.top_p)) / static_cast<double>(n) * (1.0 - 1e-9);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; ++i)
      if (c[i].weight >= floor) std::swap(c[kept++], c[i]);
    std::sort(c, c + kept, more_probable);
    const double wanted = sum * static_cast<double>(o.top_p);
    double reached = 0.0;
    for (n = 0; n < kept && reached < wanted; ++n) reached += c[n].weight;
    sum = reached;
  }
  if (o.min_p > 0.0f) {  // the most probable token has weight 1
    int64_t kept = 0;
    sum = 0.0;
    for (int64_t i = 0; i < n; ++i)
      if (c[i].weight >= static_cast<double>(o.min_p)) sum += c[i].weight, std::swap(c[kept++], c[i]);
    n = kept;
  }
  *total = sum;
  return n;
}

}  // namespace

bool sample(const float* logits, int64_t V, const Sampling& options, int64_t position, Array<Candidate>* candidates,
            int32_t* id, Error* error) {
  if (!check(logits, V, options, error)) return false;
  int64_t best = 0;
  for (int64_t i = 1; i < V; ++i)
    if (logits[i] > logits[best]) best = i;
  *id = static_cast<int32_t>(best);
  if (options.temperature == 0.0f || options.top_k == 1) return true;
  if (logits[best] == -INFINITY) return fail(error, -1, "every logit is -inf: nothing can be drawn");
  if (!candidates->resize(V)) return no_memory(error, "the candidates");
  const double scale = 1.0 / static_cast<double>(options.temperature);
  for (int64_t i = 0; i < V; ++i) {
    const double x = (static_cast<double>(logits[i]) - static_cast<double>(logits[best])) * scale;
    (*candidates)[i] = {logits[i], static_cast<int32_t>(i), exp_nonpositive(x)};
  }
  double total = 0.0;
  const int64_t n = restrict_to(candidates, options, &total);
  double left = uniform(options.seed, position) * total;
  for (int64_t i = 0; i < n; ++i) {
    const Candidate& c = (*candidates)[i];
    if (c.weight > 0.0) *id = c.id;  // rounding may leave a rest: then the last possible one
    left -= c.weight;
    if (left < 0.0) break;
  }
  return true;
}

}  // namespace gristmill::runtime
