// Softmax of a row in pieces of kLossColumns, so that a piece is read from memory once: its largest value, the sum of
// exp(x - largest), and these joined. Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
#pragma once
#include "cpu/blocks.h"

namespace gristmill::GM_ISA {
namespace {

struct LogSum {
  float top, sum;  // log(sum) + top is the log-sum-exp
};

inline float first_lane(vf v) {
  float t[W];
  vstore(t, v);
  return t[0];
}

inline float exp_of(float x) { return first_lane(vexp(vset(x))); }

// exp(-inf - shift) is 0 even where there is nothing but -inf.
inline float shift_of(float top) { return top == -INFINITY ? 0.0f : top; }

// NaN is not told from the others: exp(NaN - largest) is.
template <class T>
inline float largest_of(const T* x, int64_t n) {
  Vectors<T> best = bfirst<T>(Vectors<T>{}, 0, -INFINITY);
  each_block<T>(n, [&](int64_t j, auto w) {
    best = each_of<T>([](vf a, vf b) { return vmax(a, b); }, best, bfirst<T>(bload<T>(x + j, w), w, -INFINITY));
  });
  return vhmax(vmax(best.v[0], best.v[kVectors<T> - 1]));
}

// Of at most kLossColumns elements.
template <class T>
inline LogSum log_sum_of(const T* x, int64_t n) {
  vf sum = vzero();
  float top = largest_of(x, n);
  vf shift = vset(shift_of(top));
  each_vector(n, [&](int64_t j, auto w) { sum = sum + vfirst(vexp(vload_n(x + j, w) - shift), w, 0.0f); });
  return LogSum{top, vsum(sum)};
}

inline LogSum joined(LogSum a, LogSum b) {
  float top = a.top > b.top ? a.top : b.top, shift = shift_of(top);
  return LogSum{top, sfma(a.sum, exp_of(a.top - shift), b.sum * exp_of(b.top - shift))};
}

inline float log_sum_exp(LogSum a) { return a.top + first_lane(vlog(vset(a.sum))); }

template <class T>
inline LogSum log_sum(const T* x, int64_t n) {
  LogSum all = log_sum_of(x, n < kLossColumns ? n : kLossColumns);
  for (int64_t j = kLossColumns; j < n; j += kLossColumns)
    all = joined(all, log_sum_of(x + j, n - j < kLossColumns ? n - j : kLossColumns));
  return all;
}

// The sum of a row, piece by piece as above.
template <class T>
inline float sum_of(const T* x, int64_t n) {
  vf sum = vzero();
  each_vector(n, [&](int64_t j, auto w) { sum = sum + vload_n(x + j, w); });
  return vsum(sum);
}

template <class T>
inline float sum(const T* x, int64_t n) {
  float all = 0.0f;
  for (int64_t j = 0; j < n; j += kLossColumns) all += sum_of(x + j, n - j < kLossColumns ? n - j : kLossColumns);
  return all;
}

// -(1 - s) log softmax(own) - s mean(log softmax); the sum of the logits counts with smoothing alone.
inline float loss_of(float lse, float own, float sum, float smoothing, int64_t V) {
  if (smoothing == 0.0f) return lse - own;  // not by a factor 0: the logits may be infinite
  return lse - ((1.0f - smoothing) * own + smoothing * (sum / static_cast<float>(V)));
}

// What a row's gradient (softmax - smoothed one hot) * scale is made of; columns count from the row's first logit.
struct Target {
  float lse, scale, hot, spread;  // hot + spread in the target's column, spread in all others
  int32_t column;                 // below 0: ignored
};

inline Target target_of(int32_t column, float lse, float scale, float smoothing, int64_t V) {
  return Target{lse, scale, 1.0f - smoothing, smoothing / static_cast<float>(V), column};
}

// The gradient of columns c0 .. c0 + n; d may be x.
template <class D, class T>
inline void gradient_of(D* d, const T* x, const Target& t, int64_t c0, int64_t n, bool add) {
  if (t.column < 0) {  // not by a factor 0: the logits may be infinite
    for (int64_t j = 0; j < n && !add; ++j) d[j] = D{};
    return;
  }
  vf lse = vset(t.lse), spread = vset(t.spread), scale = vset(t.scale);
  auto soft = [&](vf v) { return (vexp(v - lse) - spread) * scale; };
  int64_t own = t.column - c0;
  bool here = own >= 0 && own < n;
  vf hot = vzero();
  if (here) hot = soft(vload_n(x + own, 1)) - vset(t.hot * t.scale) + (add ? vload_n(d + own, 1) : vzero());
  each_vector(n, [&](int64_t j, auto w) { put(d + j, soft(vload_n(x + j, w)), w, add); });
  if (here) vstore_n(d + own, hot, 1);
}

}  // namespace
}  // namespace gristmill::GM_ISA
