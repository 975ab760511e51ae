// Attention over blocks of kAttentionKeys keys; no (T, S) matrix exists. Dao, "FlashAttention-2", 2023.
#include "cpu/attention_decode.h"

namespace gristmill::GM_ISA {
namespace {

// Queries enough to pack keys for: chunks of them, against keys and values that lie packed.
template <class M, class T>
struct Forward : Strips<M, T> {
  using Base = Strips<M, T>;
  using Base::a, Base::n, Base::packed, Base::c;
  using Base::attend, Base::finish, Base::group, Base::load_query, Base::pack, Base::pack_block, Base::scratch_of;

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
    using M = decltype(items);
    using T = decltype(type);
    Strips<M, T> strips{a, n, reinterpret_cast<float*>(base + p.packed), base + p.scratch, c};
    if (n.few) return Decode<M, T>{strips}.few(ctx, reinterpret_cast<float*>(base + p.partials));
    Forward<M, T> forward{strips};
    n.whole ? forward.whole(ctx) : forward.many(ctx);
  });
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
