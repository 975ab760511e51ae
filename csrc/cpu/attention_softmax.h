// The softmax of one strip of queries over one block of keys, and how blocks are put together. Powers of two all
// along: scores are multiplied by c = scale log2(e).
#pragma once
#include "core/math.h"
#include "cpu/attention_tiles.h"

namespace gristmill::GM_ISA {
namespace {

// 2^x for x up to 1, within 2 ulp; 0 from -150 on.
inline vf vexp2(vf x) {
  x = vmax(vset(-150.0f), x);  // the operand order lets NaN through
  vf n = vround(x), r = x - n;
  vf p = vset(1.327406848e-3f);
  p = vfma(p, r, vset(9.671497159e-3f));
  p = vfma(p, r, vset(5.550700799e-2f));
  p = vfma(p, r, vset(2.402224243e-1f));
  p = vfma(p, r, vset(6.931470037e-1f));
  return vscale(vfma(p, r, vset(1.0f)), n);
}

// x, or 0 where it is -inf: what may be subtracted from it without NaN.
inline vf finite_top(vf x) { return vselect_gt(x, vset(-INFINITY), x, vzero()); }

// A query's sums over the keys so far: sum of 2^(c s - top), by lane, and the same times the values.
struct RowState {
  float top;
  float sum[W];
};

// Turns the first n scores of a row into weights 2^(c s - top) as items of M; the numbers up to the next W are 0.
template <class M>
[[gnu::always_inline]] inline void weigh(float* s, int64_t n, float c, float* top, float* sum) {
  int64_t whole = n / W * W;
  vf best = vset(-INFINITY), total = vzero();
  for (int64_t j = 0; j < whole; j += W) best = vmax(best, vload(s + j));
  if (whole < n) best = vmax(best, vfirst(vload(s + whole), n - whole, -INFINITY));
  *top = vhmax(best) * c;
  vf down = -finite_top(vset(*top)), factor = vset(c);
  for (int64_t j = 0; j < whole; j += W) {
    vf e = vexp2(vfma(vload(s + j), factor, down));
    M::store(s + j / M::kEach, e);
    total = total + e;
  }
  if (whole < n) {
    vf e = vfirst(vexp2(vfma(vload(s + whole), factor, down)), n - whole, 0.0f);
    M::store(s + whole / M::kEach, e);
    total = total + e;
  }
  vstore(sum, total);
}

// What the old and the fresh sums of up to W rows are multiplied by; the larger top becomes the new one.
inline void balance(float* top, const float* fresh_top, float* old, float* fresh) {
  vf before = vload(top), now = vload(fresh_top), most = vmax(before, now), down = finite_top(most);
  vstore(old, vexp2(before - down));
  vstore(fresh, vexp2(now - down));
  vstore(top, most);
}

}  // namespace
}  // namespace gristmill::GM_ISA
