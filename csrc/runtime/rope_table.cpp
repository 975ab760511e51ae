#include "rope_table.h"

#include <cmath>

namespace gristmill::runtime {
namespace {

constexpr double kLn2High = 0.693147180369123816490, kLn2Low = 1.90821492927058770002e-10;

double natural_log(double x) {  // x > 0: ln(m 2^e) with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m - 1) / (m + 1))
  int e = 0;
  double m = std::frexp(x, &e);
  if (m < 0.70710678118654752) m *= 2.0, --e;
  const double t = (m - 1.0) / (m + 1.0), square = t * t;  // |t| < 0.172: square^13 < 2^-65
  double sum = 0.0;
  for (int n = 25; n >= 1; n -= 2) sum = sum * square + 1.0 / n;
  return e * kLn2High + (e * kLn2Low + 2.0 * t * sum);
}

double exponential(double x) {  // |x| < 700
  const double k = std::floor(x / 0.69314718055994531 + 0.5);
  const double r = (x - k * kLn2High) - k * kLn2Low;
  double sum = 1.0;
  for (int n = 14; n >= 1; --n) sum = 1.0 + sum * r / n;
  return std::ldexp(sum, static_cast<int>(k));
}

// pi/2 in parts of at most 33 bits: k * part is exact for |k| < 2^20, positions up to 1.6 million.
constexpr double kHalfPi1 = 1.57079632673412561417e+00, kHalfPi2 = 6.07710050630396597660e-11,
                 kHalfPi3 = 2.02226624879595063154e-21;

void cos_sin(double x, double* c, double* s) {  // x >= 0
  const double k = std::floor(x / 1.5707963267948966 + 0.5);
  const double r = ((x - k * kHalfPi1) - k * kHalfPi2) - k * kHalfPi3, square = r * r;
  double sine = 1.0, cosine = 1.0;
  for (int n = 18; n >= 2; n -= 2) {
    sine = 1.0 - sine * square / (n * (n + 1));
    cosine = 1.0 - cosine * square / (n * (n - 1));
  }
  sine *= r;
  const auto quadrant = static_cast<int64_t>(k) & 3;
  *c = quadrant == 0 ? cosine : quadrant == 1 ? -sine : quadrant == 2 ? -cosine : sine;
  *s = quadrant == 0 ? sine : quadrant == 1 ? cosine : quadrant == 2 ? -sine : -cosine;
}

}  // namespace

void rope_table(float theta, const float* factors, int64_t D, int64_t positions, float* cos, float* sin) {
  const double log_theta = natural_log(static_cast<double>(theta));
  for (int64_t i = 0; i < D / 2; ++i) {
    const double factor = factors == nullptr ? 1.0 : static_cast<double>(factors[i]);
    const double frequency = exponential(-2.0 * static_cast<double>(i) / static_cast<double>(D) * log_theta) / factor;
    for (int64_t p = 0; p < positions; ++p) {
      double c = 0.0, s = 0.0;
      cos_sin(static_cast<double>(p) * frequency, &c, &s);
      cos[p * (D / 2) + i] = static_cast<float>(c);
      sin[p * (D / 2) + i] = static_cast<float>(s);
    }
  }
}

}  // namespace gristmill::runtime
