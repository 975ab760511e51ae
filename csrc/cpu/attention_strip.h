// Strips of queries against blocks of keys: scores, their softmax, weights times values, and the result. Each block has
// a softmax of its own, and blocks are put together from key 0 on: so a query's bits depend on its own keys alone, and
// blocks may be computed anywhere.
#pragma once
#include "cpu/attention_pack.h"
#include "cpu/attention_softmax.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kTogether = 4 * kRows;      // queries that use a block of keys one after the other
constexpr int64_t kWave = int64_t{8} << 18;   // items of packed keys and values at a time: 8 MiB stay in cache
constexpr int64_t kWhole = int64_t{2} << 18;  // a head of so many items is packed and computed by one worker
constexpr int64_t kFew = 8;                   // up to so many queries, keys are not packed for later

// A strip: rows of queries and what they have gathered. Row r sees `keys` + r step keys; `keys` is odd where step is 1
// and there are several rows, so that pairs of keys break the same way in every strip.
struct Strip {
  float *q, *out;  // items, sums: kStride from row to row
  RowState* state;
  int64_t rows, keys, step;
};

struct Scratch {
  float scores[kTogether * kStride], panel[kPanel * kMaxD];
  float q[kTogether * kStride], out[kTogether * kStride];
  RowState state[kTogether];
};

// Sizes that follow from the shape.
struct Sizes {
  int64_t P, items, blocks, block;  // padded D, items of D, blocks of keys, items of a packed block
  int64_t wave, chunks;             // key/value heads packed at a time, chunks of queries
  bool few, whole;
};

template <class M>
Sizes sizes_of(const AttentionForwardArgs* a, int64_t threads) {
  Sizes s{};
  int64_t heads = a->B * a->G;
  s.P = padded(a->D), s.items = ceil_div(a->D, M::kEach), s.blocks = ceil_div(a->S, KB);
  s.block = KB * s.items + KB / M::kEach * s.P;
  s.few = a->T <= kFew;
  s.whole = s.blocks * s.block <= kWhole && ceil_div(heads, threads) * threads * 8 <= heads * 9;  // few wait at the end
  s.wave = smaller(larger(kWave / (s.blocks * s.block), 1), larger(heads, 1));
  s.chunks = ceil_div(a->T, kTogether);
  return s;
}

template <class M, class T>
struct Strips {
  const AttentionForwardArgs* a;
  Sizes n;
  float* packed;
  char* scratch;
  float c;  // scores to powers of two

  Scratch* scratch_of(int64_t worker) const { return reinterpret_cast<Scratch*>(scratch) + worker; }
  int64_t group() const { return a->H / a->G; }

  // Keys k0 to k1 of a block of a key/value head, k0 at the begin of a panel: panels of keys, then rows of values.
  void pack(float* block, int64_t b, int64_t g, int64_t k0, int64_t k1) const {
    if (k1 <= k0) return;
    float *keys = block + k0 % KB * n.items, *values = block + KB * n.items + k0 % KB / M::kEach * n.P;
    pack_panels<M>(keys, at<const T>(a->k, b, k0, g), a->k.strides[1], k1 - k0, a->D);
    pack_values<M>(values, at<const T>(a->v, b, k0, g), a->v.strides[1], k1 - k0, a->D);
  }
  void pack_block(float* dst, int64_t b, int64_t g, int64_t block) const {
    pack(dst, b, g, block * KB, smaller(seen(a, b, a->T - 1), (block + 1) * KB));
  }

  void load_query(const Strip& s, int64_t row, int64_t b, int64_t t, int64_t h) const {
    pack_row<M>(s.q + row * kStride, at<const T>(a->q, b, t, h), a->D, a->scale < 0);
    s.state[row] = RowState{-INFINITY, {}};
    for (int64_t d = 0; d < n.P; d += W) vstore(s.out + row * kStride + d, vzero());
  }

  // One block of keys for the rows of a strip that see any of it.
  template <class F>
  void attend(const Strip& s, float* scores, const float* block, int64_t k0, const F& meanwhile) const {
    int64_t skipped = s.step ? larger(k0 + 1 - s.keys, 0) : s.keys <= k0 ? s.rows : 0;
    if (skipped >= s.rows) return;
    by_rows(s.rows - skipped, [&](auto rows) {
      constexpr int R = rows.value;
      float* q = s.q + skipped * kStride;
      int64_t keys = smaller(s.keys + skipped * s.step - k0, KB), most = smaller(keys + (R - 1) * s.step, KB);
      score_rows<M, kStride, R>(scores, q, block, n.items, most, meanwhile);
      RowState* state = s.state + skipped;
      float top[W] = {}, fresh_top[W] = {}, old[W], fresh[W], sum[R][W];
      for (int r = 0; r < R; ++r) top[r] = state[r].top;
      constexpr int G = R % 4 == 0 ? 4 : R % 2 == 0 ? 2 : 1;
      for (int r = 0; r < R; r += G)
        weigh<M, kStride, G>(scores + r * kStride, r, Visible{keys, s.step, KB}, c, fresh_top, sum);
      balance(top, fresh_top, old, fresh);
      for (int r = 0; r < R; ++r) {
        state[r].top = top[r];
        vstore(state[r].sum, vfma(vload(sum[r]), vset(fresh[r]), vload(state[r].sum) * vset(old[r])));
      }
      Steps steps{s.step ? keys / M::kEach : ceil_div(keys, M::kEach), 0};
      steps.last = ceil_div(most, M::kEach) - steps.shared;
      const float* values = block + KB * n.items;
      float* out = s.out + skipped * kStride;
      by_columns(n.P, [&](int64_t d, auto vectors) {
        value_tile<M, R, vectors.value>(out + d, scores, values + d, n.P, steps, old, fresh);
      });
    });
  }

  // Writes the results of up to W queries that follow each other.
  void finish(const float* out, const RowState* state, int64_t rows, int64_t b, int64_t t, int64_t h) const {
    float total[W] = {}, top[W] = {}, inverse[W], lse[W];
    for (int64_t r = 0; r < rows; ++r) total[r] = vsum(vload(state[r].sum)), top[r] = state[r].top;
    vf sum = vload(total);
    vstore(inverse, vselect_gt(sum, vzero(), vset(1.0f) / sum, sum));  // a query without keys gives 0
    for (int64_t r = 0; r < rows; ++r) {
      T* to = at<T>(a->out, b, t + r, h);
      for (int64_t d = 0; d < a->D; d += W)
        put(to + d, vload(out + r * kStride + d) * vset(inverse[r]), a->D - d, a->out.accumulate);
    }
    if (!a->lse.data) return;
    vstore(lse, vfma(vload(top), vset(0.693147182f), vlog(sum)));
    for (int64_t r = 0; r < rows; ++r) *lse_at(a->lse, b, h, t + r) = lse[r];
  }
};

}  // namespace
}  // namespace gristmill::GM_ISA
