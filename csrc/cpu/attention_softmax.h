// The softmax of one strip of queries over one block of keys, and how blocks are put together. Powers of two all
// along: scores are multiplied by c = scale log2(e).
#pragma once
#include "core/math.h"
#include "cpu/attention_tiles.h"

namespace gristmill::GM_ISA {
namespace {

// 2^x for x up to 1, within 2 ulp; 0 from -150 on.
inline vf vexp2_clamped(vf x) {
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

// Which scores of a strip count: the first `keys` of row 0, `step` more for each row, of a block of `block`.
struct Visible {
  int64_t keys, step, block;
  int64_t of(int64_t row) const { return smaller(keys + row * step, block); }
};

// Turns the scores of G rows, LD apart, into weights 2^(c s - top) as items of M; the numbers up to the next W are 0.
// Rows go together: their maxima and sums are chains, and a loop for each would end unforeseen.
template <class M, int64_t LD, int G>
[[gnu::always_inline]] inline void weigh(float* s, int64_t row, Visible n, float c, float* top, float (*sum)[W]) {
  int64_t whole = n.of(row) / W * W, most = n.of(row + G - 1);
  vf best[G], down[G], total[G], factor = vset(c);
#pragma GCC unroll 16
  for (int r = 0; r < G; ++r) best[r] = vset(-INFINITY), total[r] = vzero();
  for (int64_t j = 0; j < whole; j += W)
#pragma GCC unroll 16
    for (int r = 0; r < G; ++r) best[r] = vmax(best[r], vload(s + r * LD + j));
  for (int64_t j = whole; j < most; j += W)
#pragma GCC unroll 16
    for (int r = 0; r < G; ++r)
      best[r] = vmax(best[r], vfirst(vload(s + r * LD + j), larger(n.of(row + r) - j, 0), -INFINITY));
#pragma GCC unroll 16
  for (int r = 0; r < G; ++r) {
    top[row + r] = vhmax(best[r]) * c;
    down[r] = -finite_top(vset(top[row + r]));
  }
  for (int64_t j = 0; j < whole; j += W)
#pragma GCC unroll 16
    for (int r = 0; r < G; ++r) {
      vf e = vexp2_clamped(vfma(vload(s + r * LD + j), factor, down[r]));
      M::store(s + r * LD + j / M::kEach, e);
      total[r] = total[r] + e;
    }
  for (int64_t j = whole; j < most; j += W)
#pragma GCC unroll 16
    for (int r = 0; r < G; ++r) {
      vf e = vexp2_clamped(vfma(vload(s + r * LD + j), factor, down[r]));
      e = vfirst(e, larger(n.of(row + r) - j, 0), 0.0f);
      M::store(s + r * LD + j / M::kEach, e);
      total[r] = total[r] + e;
    }
#pragma GCC unroll 16
  for (int r = 0; r < G; ++r) vstore(sum[row + r], total[r]);
}

// What the old and the fresh sums of up to W rows are multiplied by; the larger top becomes the new one.
inline void balance(float* top, const float* fresh_top, float* old, float* fresh) {
  vf before = vload(top), now = vload(fresh_top), most = vmax(before, now), down = finite_top(most);
  vstore(old, vexp2_clamped(before - down));
  vstore(fresh, vexp2_clamped(now - down));
  vstore(top, most);
}

}  // namespace
}  // namespace gristmill::GM_ISA
