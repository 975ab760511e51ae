// The backward pass of attention: probabilities come back from the forward pass's log-sum-exp, block by block.
// Dao, "FlashAttention-2", 2023, algorithm 2. One head is one piece of work; its gradients are chains over queries or
// keys in order, so blocks do not show in the bits. With P the probabilities, dP = dout v^T and delta = rowsum(dout
// out): dS = P (dP - delta), dq = scale dS k, dk = scale dS^T q, dv = P^T dout.
#include "cpu/attention_backward_tiles.h"
#include "cpu/attention_pack.h"
#include "cpu/attention_softmax.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kSumRows = 256;  // keys of a piece of work when heads of a group are added up

// One block of queries.
struct Block {
  float q[kBlock * kStride], dout[kBlock * kStride];            // rows of items
  float q_values[kBlock * kMaxD], dout_values[kBlock * kMaxD];  // items that run down the queries
  float dq[kBlock * kMaxD];
  float s[kRows * kLd], dp[kRows * kLd];                           // of one strip
  float p[kBlock * kLd], ds[kBlock * kLd], ds_rows[kBlock * kLd];  // items down the queries, twice, and along the keys
  float lse[kBlock], delta[kBlock];
};

template <class M, class T>
struct Backward {
  const AttentionBackwardArgs* a;
  int64_t P, items, keys;  // padded D, items of D, keys rounded up to blocks
  char* scratch;
  float* partial;  // (B, H, 2, keys, P): gradients of keys and values by query head, null where each has its own
  float c;

  // Of each worker: the keys and values as panels, the keys as values, the gradients of both, one block.
  int64_t panels() const { return keys * items; }
  int64_t bytes() const {
    return 4 * (2 * panels() + keys / M::kEach * P + 2 * keys * P) + static_cast<int64_t>(sizeof(Block));
  }

  // Keys k0.. of the block that query t sees.
  int64_t visible(int64_t b, int64_t t, int64_t k0, int64_t count) const {
    return t < a->T ? larger(smaller(seen(a, b, t) - k0, count), 0) : 0;
  }

  void load_queries(Block* w, int64_t b, int64_t h, int64_t t0, int64_t n) const {
    for (int64_t i = 0; i < n; ++i)
      for (const View* v : {&a->q, &a->dout, &a->out}) prefetch_row(at<const T>(*v, b, t0 + i, h), a->D);
    for (int64_t i = 0; i < n; ++i) {
      const T *y = at<const T>(a->out, b, t0 + i, h), *dy = at<const T>(a->dout, b, t0 + i, h);
      pack_row<M>(w->q + i * kStride, at<const T>(a->q, b, t0 + i, h), a->D, false);
      pack_row<M>(w->dout + i * kStride, dy, a->D, false);
      vf dot = vzero();
      for (int64_t d = 0; d < a->D; d += W) dot = vfma(vload_n(dy + d, a->D - d), vload_n(y + d, a->D - d), dot);
      w->delta[i] = vsum(dot);
      float lse = *lse_at(a->lse, b, h, t0 + i);
      w->lse[i] = lse == -INFINITY ? 0.0f : lse * 1.44269504f;
    }
    pack_values<M>(w->q_values, at<const T>(a->q, b, t0, h), a->q.strides[1], n, a->D);
    pack_values<M>(w->dout_values, at<const T>(a->dout, b, t0, h), a->dout.strides[1], n, a->D);
    for (int64_t i = 0; i < n * P; i += W) vstore(w->dq + i, vzero());
  }

  // Scores and dP of rows i.. of the strip become P and dS; as many rows as an item holds.
  void weigh_rows(Block* w, int64_t row, int64_t i, const int64_t* n) const {
    int64_t most = M::kEach == 2 ? larger(n[0], n[1]) : n[0];
    for (int64_t j = 0; j < most; j += W) {
      vf p[M::kEach], ds[M::kEach];
      for (int e = 0; e < M::kEach; ++e) {
        int64_t in_strip = (i + e) * kLd + j, left = larger(n[e] - j, 0);
        p[e] = vfirst(vexp2_clamped(vfma(vload(w->s + in_strip), vset(c), vset(-w->lse[row + e]))), left, 0.0f);
        ds[e] = vfirst(p[e] * (vload(w->dp + in_strip) - vset(w->delta[row + e])), left, 0.0f);
        if constexpr (M::kEach == 2) M::store(w->ds_rows + (row + e) * kLd + j / 2, ds[e]);
      }
      vstore(w->p + row / M::kEach * kLd + j, M::join(p));
      vstore(w->ds + row / M::kEach * kLd + j, M::join(ds));
    }
  }

  // P and dS of a block of queries and a block of keys, as far as they see each other.
  template <class F>
  void weigh_block(Block* w, const float* k, const float* v, int64_t b, int64_t t0, int64_t n, int64_t k0,
                   int64_t count, const F& meanwhile) const {
    for (int64_t i = 0, rows; i < n; i += rows) {
      rows = strip_rows(n - i, false);
      int64_t most = visible(b, t0 + i + rows - 1, k0, count);
      if (most > 0)
        by_rows(rows, [&](auto r) {
          score_rows<M, kLd, r.value>(w->s, w->q + i * kStride, k, items, most, meanwhile);
          score_rows<M, kLd, r.value>(w->dp, w->dout + i * kStride, v, items, most, meanwhile);
        });
      for (int64_t r = 0; r < rows; r += M::kEach) {
        int64_t sees[2] = {visible(b, t0 + i + r, k0, count), 0};
        if (r + 1 < rows) sees[1] = visible(b, t0 + i + r + 1, k0, count);
        weigh_rows(w, i + r, r, sees);
      }
    }
  }

  void to_queries(Block* w, const float* values, int64_t b, int64_t t0, int64_t n, int64_t k0, int64_t count) const {
    const float* from = M::kEach == 2 ? w->ds_rows : w->ds;
    for (int64_t i = 0, rows; i < n; i += rows) {
      int64_t all = seen(a, b, t0 + i) - k0, least = visible(b, t0 + i, k0, count);
      rows = all < 1 ? 1 : strip_rows(n - i, a->causal && all % 2 == 0);
      if (all < 1) continue;
      int64_t most = visible(b, t0 + i + rows - 1, k0, count);
      Steps steps{a->causal ? least / M::kEach : ceil_div(least, M::kEach), 0};
      steps.last = ceil_div(most, M::kEach) - steps.shared;
      by_rows(rows, [&](auto r) {
        by_columns(P, [&](int64_t d, auto vectors) {
          query_tile<M, r.value, vectors.value>(w->dq + i * P + d, P, from + i * kLd, values + d, steps);
        });
      });
    }
  }

  void to_keys(const Block* w, float* dk, float* dv, int64_t b, int64_t t0, int64_t n, int64_t k0,
               int64_t count) const {
    int64_t end = ceil_div(n, M::kEach);
    for (int64_t j = 0, rows; j < count; j += rows) {
      int64_t first = a->causal ? k0 + j + 1 - seen_first(a, b) - t0 : 0;  // query of the block that sees key j
      rows = strip_rows(count - j, first % 2 != 0);
      if (first >= n) break;
      int64_t steps = rows == 1 ? first % 2 != 0 : rows / M::kEach;  // items that not all of them take
      if (M::kEach == 1) steps = rows - 1;
      Seen range{a->causal ? first - (first % M::kEach != 0) : 0, 0, end};
      range.at /= M::kEach;
      range.shared = a->causal ? range.at + steps : 0;
      if (range.shared < 0) range.at = range.shared = 0;
      by_rows(rows, [&](auto r) {
        by_columns(P, [&](int64_t d, auto vectors) {
          constexpr int R = r.value, V = vectors.value;
          key_tile<M, R, V>(dv + j * P + d, P, w->p + j, w->dout_values + d, range);
          key_tile<M, R, V>(dk + j * P + d, P, w->ds + j, w->q_values + d, range);
        });
      });
    }
  }

  // Rows from t on of four operands of which head h of sequence b has `end`.
  Ahead rows_ahead(const View* const (&views)[4], int64_t b, int64_t t, int64_t h, int64_t end) const {
    Ahead x{};
    if (b >= a->B || t >= end) return x;
    for (int i = 0; i < 4; ++i) x.set<T>(i, *views[i], b, t, h);
    x.rows = smaller(end - t, kBlock), x.bytes = a->D * static_cast<int64_t>(sizeof(T));
    return x;
  }

  // `after` is the head that this worker is likely to take next.
  void head(char* own, int64_t b, int64_t h, int64_t after) const {
    int64_t g = h / (a->H / a->G), most = smaller(seen(a, b, a->T - 1), a->S);
    float *k = reinterpret_cast<float*>(own), *v = k + panels(), *values = v + panels();
    float *dk = values + keys / M::kEach * P, *dv = dk + keys * P;
    Block* w = reinterpret_cast<Block*>(dv + keys * P);
    if (partial) dk = partial + (b * a->H + h) * 2 * keys * P, dv = dk + keys * P;
    pack_panels<M>(k, at<const T>(a->k, b, 0, g), a->k.strides[1], most, a->D);
    pack_panels<M>(v, at<const T>(a->v, b, 0, g), a->v.strides[1], most, a->D);
    pack_values<M>(values, at<const T>(a->k, b, 0, g), a->k.strides[1], most, a->D);
    for (int64_t i = 0; i < keys * P; i += W) vstore(dk + i, vzero()), vstore(dv + i, vzero());
    for (int64_t t0 = 0; t0 < a->T; t0 += kBlock) {
      int64_t n = smaller(a->T - t0, kBlock), last = seen(a, b, t0 + n - 1);
      load_queries(w, b, h, t0, n);
      bool more = t0 + n < a->T;
      int64_t b1 = after / a->H, h1 = after % a->H;
      Ahead queries =
          rows_ahead({&a->q, &a->dout, &a->out, &a->dq}, more ? b : b1, more ? t0 + n : 0, more ? h : h1, a->T);
      Ahead others = rows_ahead({&a->k, &a->v, &a->dk, &a->dv}, b1, t0, h1 / (a->H / a->G), a->S);
      queries.each = others.each = ceil_div(kBlock, larger(ceil_div(n, kRows) * 2 * ceil_div(last, kPanel), 1));
      for (int64_t k0 = 0; k0 < last; k0 += kBlock) {
        int64_t count = smaller(last - k0, kBlock);
        weigh_block(w, k + k0 * items, v + k0 * items, b, t0, n, k0, count, [&] { queries.fetch(), others.fetch(); });
        to_queries(w, values + k0 / M::kEach * P, b, t0, n, k0, count);
        to_keys(w, dk + k0 * P, dv + k0 * P, b, t0, n, k0, count);
      }
      for (int64_t i = 0; i < n; ++i) write(a->dq, b, t0 + i, h, w->dq + i * P, 1, 0, a->scale);
    }
    if (!partial) write_keys(dk, 1, b, g, 0, a->S);
  }

  // The sum of `heads` rows, `apart` from each other, times a factor.
  void write(const View& to, int64_t b, int64_t t, int64_t h, const float* from, int64_t heads, int64_t apart,
             float factor) const {
    for (int64_t d = 0; d < a->D; d += W) {
      vf sum = vload(from + d);
      for (int64_t i = 1; i < heads; ++i) sum = sum + vload(from + i * apart + d);
      put(at<T>(to, b, t, h) + d, sum * vset(factor), a->D - d, to.accumulate);
    }
  }
  void write_keys(const float* dk, int64_t heads, int64_t b, int64_t g, int64_t first, int64_t last) const {
    for (int64_t j = first; j < last; ++j) {
      for (const View* to : {&a->dk, &a->dv})
        if (j + W < last) prefetch_row(at<T>(*to, b, j + W, g), a->D);
      write(a->dk, b, j, g, dk + j * P, heads, 2 * keys * P, a->scale);
      write(a->dv, b, j, g, dk + (keys + j) * P, heads, 2 * keys * P, 1.0f);
    }
  }

  void run(Context* ctx) const {
    share_out(ctx, a->B * a->H, [&](int64_t worker, int64_t i) {
      head(scratch + worker * bytes(), i / a->H, i % a->H, i + ctx->threads);
    });
    if (!partial) return;
    int64_t pieces = ceil_div(a->S, kSumRows), group = a->H / a->G;
    share_out(ctx, a->B * a->G * pieces, [&](int64_t, int64_t i) {
      int64_t first = i % pieces * kSumRows, g = i / pieces % a->G, b = i / pieces / a->G;
      write_keys(partial + (b * a->H + g * group) * 2 * keys * P, group, b, g, first, smaller(first + kSumRows, a->S));
    });
  }
};

template <class F>
auto by_arithmetic(const AttentionBackwardArgs* a, const F& f) {
  int64_t P = padded(a->D), keys = ceil_div(a->S, kBlock) * kBlock;
  auto make = [&](auto type, auto arithmetic) {
    using M = decltype(arithmetic);
    using Pass = Backward<M, decltype(type)>;
    return f(Pass{a, P, ceil_div(a->D, M::kEach), keys, nullptr, nullptr, a->scale * 1.44269504f});
  };
  return a->q.dtype == DType::bf16 ? make(uint16_t{}, ArithmeticOf<uint16_t>::Items{}) : make(float{}, Single{});
}

// Bytes of the gradients by query head, where several share a key/value head.
int64_t partial_bytes(const AttentionBackwardArgs* a) {
  return a->H == a->G ? 0 : a->B * a->H * 2 * ceil_div(a->S, kBlock) * kBlock * padded(a->D) * 4;
}

}  // namespace

int64_t attention_backward_workspace(const AttentionBackwardArgs* a, int32_t threads) {
  return by_arithmetic(a, [&](auto pass) { return partial_bytes(a) + larger(threads, 1) * pass.bytes(); });
}

Status attention_backward(Context* ctx, const AttentionBackwardArgs* a) {
  if (!supported(a, {a->dq, a->dk, a->dv, a->dout, a->q, a->k, a->v, a->out})) return Status::unsupported;
  if (a->q.dtype != DType::f32 && a->q.dtype != DType::bf16) return Status::unsupported;
  if (ctx->workspace_bytes < attention_backward_workspace(a, ctx->threads)) return Status::workspace;
  return by_arithmetic(a, [&](auto pass) {
    int64_t partial = partial_bytes(a);
    pass.scratch = static_cast<char*>(ctx->workspace) + partial;
    pass.partial = partial ? static_cast<float*>(ctx->workspace) : nullptr;
    pass.run(ctx);
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
