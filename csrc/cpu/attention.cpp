// Attention over blocks of kAttentionKeys keys; no (T, S) matrix exists. Dao, "FlashAttention-2", 2023.
// Each block has a softmax of its own, and blocks are put together from key 0 on: so a query's bits depend on its own
// keys alone, and blocks may be computed anywhere (decoding spreads them over the threads).
#include "cpu/attention_pack.h"
#include "cpu/attention_softmax.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kTogether = 4 * kRows;      // queries that use a block of keys one after the other
constexpr int64_t kWave = int64_t{8} << 18;   // items of packed keys and values at a time: 8 MiB stay in cache
constexpr int64_t kWhole = int64_t{2} << 18;  // a head of so many items is packed and computed by one worker
constexpr int64_t kFew = 8;                   // up to so many queries, keys are not packed for later
constexpr int64_t kPartial = 2 * W;           // floats of a partial result before its D sums

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
struct Forward {
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

  // Queries t0.. of one head against all packed blocks they see.
  void chunk(Scratch* own, const float* head, int64_t b, int64_t h, int64_t t0, int64_t count, Ahead ahead) const {
    Strip strips[kTogether / kRows + 2];
    int64_t made = 0, step = a->causal ? 1 : 0;
    for (int64_t t = 0; t < count; ++made) {
      int64_t keys = seen(a, b, t0 + t), rows = strip_rows(count - t, step && keys % 2 == 0);
      strips[made] = {own->q + t * kStride, own->out + t * kStride, own->state + t, rows, keys, step};
      t += rows;
    }
    Strip all{own->q, own->out, own->state, count, 0, 0};
    for (int64_t t = 0; t < count; ++t) load_query(all, t, b, t0 + t, h);
    int64_t most = seen(a, b, t0 + count - 1);
    ahead.each = ceil_div(ahead.rows, larger(made * ceil_div(most, kPanel), 1));
    for (int64_t k0 = 0; k0 < most; k0 += KB)
      for (int64_t i = 0; i < made; ++i)
        attend(strips[i], own->scores, head + k0 / KB * n.block, k0, [&] { ahead.fetch(); });
    for (int64_t t = 0; t < count; t += W)
      finish(own->out + t * kStride, own->state + t, smaller(count - t, W), b, t0 + t, h);
  }

  // The queries from t0 on of head h of a group, with as many keys.
  Ahead rows_ahead(int64_t head, int64_t h, int64_t t0) const {
    Ahead x{};
    if (head >= a->B * a->G) return x;
    int64_t b = head / a->G, g = head % a->G, k0 = larger(smaller(seen(a, b, t0) - 1, a->S - kTogether), 0);
    const View* views[4] = {&a->q, &a->out, &a->k, &a->v};
    for (int i = 0; i < 4; ++i) x.set<T>(i, *views[i], b, i < 2 ? t0 : k0, i < 2 ? g * group() + h : g);
    x.rows = smaller(a->T - t0, kTogether), x.bytes = a->D * static_cast<int64_t>(sizeof(T));
    return x;
  }

  // Many heads: each worker packs and computes whole ones in its own cache, keys as far as the next queries see them.
  void whole(Context* ctx) const {
    share_out(ctx, a->B * a->G, [&](int64_t worker, int64_t i) {
      float* own = packed + worker * n.blocks * n.block;
      int64_t b = i / a->G, g = i % a->G, have = 0, all = seen(a, b, a->T - 1);
      for (int64_t h = 0; h < group(); ++h)
        for (int64_t t0 = 0; t0 < a->T; t0 += kTogether) {
          int64_t count = smaller(a->T - t0, kTogether), most = seen(a, b, t0 + count - 1);
          int64_t want = smaller(ceil_div(most, kPanel) * kPanel, all);
          for (int64_t k1; have < want; have = k1) {
            k1 = smaller(want, (have / KB + 1) * KB);
            pack(own + have / KB * n.block, b, g, have, k1);
          }
          Ahead next = t0 + count < a->T ? rows_ahead(i, h, t0 + count)
                       : h + 1 < group() ? rows_ahead(i, h + 1, 0)
                                         : rows_ahead(i + ctx->threads, 0, 0);  // likely the worker's next
          chunk(scratch_of(worker), own, b, g * group() + h, t0, count, next);
        }
    });
  }

  // Few heads: the keys of some are packed, then their queries handed out, the ones with most keys first.
  void many(Context* ctx) const {
    int64_t size = ceil_div(a->T, n.chunks);
    size = (size + 1) / 2 * 2;
    for (int64_t first = 0; first < a->B * a->G; first += n.wave) {
      int64_t heads = smaller(n.wave, a->B * a->G - first);
      share_out(ctx, heads * n.blocks, [&](int64_t, int64_t i) {
        int64_t head = first + i / n.blocks;
        pack_block(packed + i * n.block, head / a->G, head % a->G, i % n.blocks);
      });
      share_out(ctx, heads * group() * n.chunks, [&](int64_t worker, int64_t i) {
        int64_t head = i / group() % heads, t0 = (n.chunks - 1 - i / group() / heads) * size;
        int64_t b = (first + head) / a->G, h = (first + head) % a->G * group() + i % group();
        if (t0 < a->T)
          chunk(scratch_of(worker), packed + head * n.blocks * n.block, b, h, t0, smaller(size, a->T - t0), Ahead{});
      });
    }
  }

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

// Workspace: packed keys and values, partial results, then scratch of each worker.
struct Places {
  int64_t packed, partials, scratch, bytes;
};

Places places(const AttentionForwardArgs* a, const Sizes& n, int64_t threads) {
  int64_t packed = n.few ? threads * n.block : (n.whole ? threads : n.wave) * n.blocks * n.block;
  int64_t partials = n.few ? a->B * a->H * a->T * n.blocks * (kPartial + n.P) : 0;
  int64_t scratch = threads * static_cast<int64_t>(sizeof(Scratch));
  return {0, 4 * packed, 4 * (packed + partials), 4 * (packed + partials) + scratch};
}

template <class F>
auto by_arithmetic(const AttentionForwardArgs* a, const F& f) {
  using Half = ArithmeticOf<uint16_t>::Items;
  return a->q.dtype == DType::bf16 ? f(uint16_t{}, Half{}) : f(float{}, Single{});
}

}  // namespace

int64_t attention_forward_workspace(const AttentionForwardArgs* a, int32_t threads) {
  return by_arithmetic(a, [&](auto, auto items) {
    return places(a, sizes_of<decltype(items)>(a, larger(threads, 1)), larger(threads, 1)).bytes;
  });
}

Status attention_forward(Context* ctx, const AttentionForwardArgs* a) {
  if (!supported(a, {a->out, a->q, a->k, a->v}) || a->lse.accumulate) return Status::unsupported;
  if (a->q.dtype != DType::f32 && a->q.dtype != DType::bf16) return Status::unsupported;
  if (ctx->workspace_bytes < attention_forward_workspace(a, ctx->threads)) return Status::workspace;
  if (a->T == 0) return Status::ok;
  by_arithmetic(a, [&](auto type, auto items) {
    int64_t threads = larger(ctx->threads, 1);
    Sizes n = sizes_of<decltype(items)>(a, threads);
    Places p = places(a, n, threads);
    char* base = static_cast<char*>(ctx->workspace);
    float c = std::fabs(a->scale) * 1.44269504f;
    Forward<decltype(items), decltype(type)> f{a, n, reinterpret_cast<float*>(base + p.packed), base + p.scratch, c};
    if (n.few)
      f.few(ctx, reinterpret_cast<float*>(base + p.partials));
    else
      n.whole ? f.whole(ctx) : f.many(ctx);
  });
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
