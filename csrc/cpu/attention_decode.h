// Attention of few queries, as in decoding: blocks of keys are spread over the threads, and their partial results put
// together afterwards. Dao et al., "Flash-Decoding", 2023.
#pragma once
#include "cpu/attention_strip.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kPartial = 2 * W;  // floats of a partial result before its D sums

template <class M, class T>
struct Decode : Strips<M, T> {
  using Base = Strips<M, T>;
  using Base::a, Base::n, Base::packed, Base::c;
  using Base::attend, Base::finish, Base::group, Base::load_query, Base::pack_block, Base::scratch_of;

  // Few queries: blocks of keys are handed out, each packed for its queries alone; their partial results are put
  // together afterwards.
  void few(Context* ctx, float* partials) const {
    int64_t each = kPartial + n.P;
    auto partial = [=, this](int64_t b, int64_t h, int64_t t, int64_t block) {
      return partials + (((b * a->H + h) * a->T + t) * n.blocks + block) * each;
    };
    if (a->T == 1 && group() <= kTogether) {
      // Heads of a block lie side by side: one task reads them all, unless tasks are too few for that.
      int64_t heads = a->B * n.blocks < 4 * ctx->threads ? 1 : smaller(kTogether / group(), a->G);
      int64_t parts = ceil_div(a->G, heads);
      share_out(ctx, a->B * n.blocks * parts, [&](int64_t worker, int64_t i) {
        int64_t block = i / parts % n.blocks, b = i / parts / n.blocks, g = i % parts * heads;
        stored(scratch_of(worker), b, g, smaller(heads, a->G - g), block, partial);
      });
    } else {
      share_out(ctx, a->B * a->G * n.blocks, [&](int64_t worker, int64_t i) {
        int64_t block = i % n.blocks, head = i / n.blocks, b = head / a->G, g = head % a->G;
        if (block * KB >= seen(a, b, a->T - 1)) return;
        float* keys = packed + worker * n.block;
        pack_block(keys, b, g, block);
        for (int64_t row = 0; row < group() * a->T;) row += partly(scratch_of(worker), keys, b, g, row, block, partial);
      });
    }
    share_out(ctx, a->B * a->H * a->T, [&](int64_t worker, int64_t i) {
      int64_t t = i % a->T, h = i / a->T % a->H, b = i / a->T / a->H;
      gather(scratch_of(worker), partial(b, h, t, 0), b, t, h);
    });
  }

  // Scores of all rows of some heads against `keys` keys as they are stored, a piece of all heads after the other.
  template <class F>
  void stored_scores(Scratch* own, int64_t b, int64_t g0, int64_t heads, int64_t k0, int64_t keys,
                     const F& touch) const {
    int64_t often = ceil_div(W * W, n.items);  // as many rows as are packed meanwhile
    for (int64_t j = 0; j < keys; j += kPanel)
      for (int64_t h = 0; h < heads; ++h) {
        int64_t count = smaller(keys - j, kPanel);
        pack_panels<M>(own->panel, at<const T>(a->k, b, k0 + j, g0 + h), a->k.strides[1], count, a->D, [&] {
          for (int64_t i = 0; i < often; ++i) touch();
        });
        by_four(h * group(), (h + 1) * group(), [&](int64_t r, auto rows) {
          score_rows<M, kStride, rows.value>(own->scores + r * kStride + j, own->q + r * kStride, own->panel, n.items,
                                             count, [] {});
        });
      }
  }

  // Their weights times the values, the same way.
  template <class F>
  void stored_values(Scratch* own, int64_t b, int64_t g0, int64_t heads, int64_t k0, int64_t keys,
                     const F& touch) const {
    for (int64_t j = 0; j < keys; j += kPanel)
      for (int64_t h = 0; h < heads; ++h)
        by_four(h * group(), (h + 1) * group(), [&](int64_t r, auto rows) {
          const T* values = at<const T>(a->v, b, k0 + j, g0 + h);
          auto columns = [&](int64_t d, auto vectors) {
            bool first = d == 0 && r == h * group();
            stored_value_tile<M, rows.value, vectors.value>(own->out + r * kStride + d,
                                                            own->scores + r * kStride + j / M::kEach, values + d,
                                                            a->v.strides[1], smaller(keys - j, kPanel), a->D - d, [&] {
                                                              for (int e = 0; first && e < M::kEach; ++e) touch();
                                                            });
          };
          int64_t d = 0;
          for (; d + kStored * W <= n.P; d += kStored * W) columns(d, std::integral_constant<int, kStored>{});
          for (; d < n.P; d += W) columns(d, std::integral_constant<int, 1>{});
        });
  }

  // One query a head against a block of keys of some heads. Memory is asked for in its order, kPanel rows of all heads
  // before they are read: head by head it gives a third.
  template <class F>
  void stored(Scratch* own, int64_t b, int64_t g0, int64_t heads, int64_t block, const F& partial) const {
    int64_t k0 = block * KB, keys = smaller(seen(a, b, 0) - k0, KB), rows = heads * group();
    if (keys <= 0) return;
    int64_t next = 0, next_head = 0;  // row of keys, then of values
    auto touch = [&] {
      if (next == 2 * keys) return;
      const View& from = next < keys ? a->k : a->v;
      const T* row = at<const T>(from, b, k0 + (next < keys ? next : next - keys), g0 + next_head);
      for (int64_t d = 0; d < a->D; d += 64 / sizeof(T)) __builtin_prefetch(row + d, 0, 2);
      if (++next_head == heads) ++next, next_head = 0;
    };
    for (int64_t i = 0; i < kPanel * heads; ++i) touch();
    Strip all{own->q, own->out, own->state, rows, 0, 0};
    for (int64_t r = 0; r < rows; ++r) load_query(all, r, b, 0, g0 * group() + r);
    stored_scores(own, b, g0, heads, k0, keys, touch);
    float top[kTogether], sum[kTogether][W];
    by_four(0, rows, [&](int64_t r, auto each) {
      weigh<M, kStride, each.value>(own->scores + r * kStride, 0, {keys, 0, KB}, c, top + r, sum + r);
    });
    stored_values(own, b, g0, heads, k0, keys, touch);
    for (int64_t r = 0; r < rows; ++r) {
      float* to = partial(b, g0 * group() + r, 0, block);
      to[0] = top[r];
      vstore(to + W, vload(sum[r]));
      for (int64_t d = 0; d < n.P; d += W) vstore(to + kPartial + d, vload(own->out + r * kStride + d));
    }
  }

  // The rows from `row` on that make a strip, of the heads of a group and their queries; gives how many. Heads of one
  // query each go together: they see the same keys.
  template <class F>
  int64_t partly(Scratch* own, const float* keys, int64_t b, int64_t g, int64_t row, int64_t block,
                 const F& partial) const {
    int64_t t = row % a->T, left = a->T == 1 ? group() - row : a->T - t;
    Strip s{own->q, own->out, own->state, 1, seen(a, b, t), a->T == 1 || !a->causal ? 0 : 1};
    s.rows = strip_rows(left, s.step && s.keys % 2 == 0);
    auto head = [&](int64_t r) { return g * group() + (row + r) / a->T; };
    for (int64_t r = 0; r < s.rows; ++r) load_query(s, r, b, (row + r) % a->T, head(r));
    attend(s, own->scores, keys, block * KB, [] {});
    for (int64_t r = 0; r < s.rows; ++r) {
      float* to = partial(b, head(r), (row + r) % a->T, block);
      to[0] = s.state[r].top;
      vstore(to + W, vload(s.state[r].sum));
      for (int64_t d = 0; d < n.P; d += W) vstore(to + kPartial + d, vload(s.out + r * kStride + d));
    }
    return s.rows;
  }

  // Puts the blocks of one query together, as `attend` does one after the other.
  void gather(Scratch* own, const float* partial, int64_t b, int64_t t, int64_t h) const {
    Strip s{own->q, own->out, own->state, 1, 0, 0};
    load_query(s, 0, b, t, h);
    for (int64_t k0 = 0; k0 < seen(a, b, t); k0 += KB, partial += kPartial + n.P) {
      float top[W] = {s.state->top}, fresh_top[W] = {partial[0]}, old[W], fresh[W];
      balance(top, fresh_top, old, fresh);
      vf before = vset(old[0]), now = vset(fresh[0]);
      s.state->top = top[0];
      vstore(s.state->sum, vfma(vload(partial + W), now, vload(s.state->sum) * before));
      for (int64_t d = 0; d < n.P; d += W)
        vstore(s.out + d, vfma(vload(partial + kPartial + d), now, vload(s.out + d) * before));
    }
    finish(s.out, s.state, 1, b, t, h);
  }
};

}  // namespace
}  // namespace gristmill::GM_ISA
