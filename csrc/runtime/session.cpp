#include "session.h"

#include <sys/mman.h>

#include <cmath>

#include "rope_table.h"

namespace gristmill::runtime {
namespace {

View f32(const void* data, int64_t s0, int64_t s1 = 0, int64_t s2 = 0, int64_t s3 = 0) {
  View v{};
  v.data = const_cast<void*>(data);  // kernels do not write inputs
  v.dtype = DType::f32;
  v.strides[0] = s0, v.strides[1] = s1, v.strides[2] = s2, v.strides[3] = s3;
  return v;
}
View matrix(const void* data, int64_t columns) { return f32(data, columns, 1); }
View batched(const void* data, int64_t rows, int64_t columns) { return f32(data, rows * columns, columns, 1); }
View by_head(const void* data, int64_t T, int64_t H, int64_t D) { return f32(data, T * H * D, H * D, D, 1); }

MatmulArgs matmul_args(float* out, const float* x, const View& weight, int64_t rows, int64_t N, int64_t K) {
  MatmulArgs a{};
  a.out = batched(out, rows, N);
  a.a = batched(x, rows, K);
  a.b = weight;  // (N, K) read as (K, N)
  a.b.strides[0] = 0, a.b.strides[1] = weight.strides[1], a.b.strides[2] = weight.strides[0], a.b.strides[3] = 0;
  a.batch = 1, a.M = rows, a.N = N, a.K = K;
  a.compute = DType::f32;
  return a;
}

}  // namespace

Session::~Session() {
  if (block_ != nullptr) munmap(block_, static_cast<size_t>(block_bytes_));
}

int64_t Session::place(const LlamaConfig& c, int64_t n_ctx, int64_t workspace, uint8_t* base, Buffers* b) {
  int64_t used = 0;
  const auto take = [&](int64_t bytes) {
    uint8_t* p = base == nullptr ? nullptr : base + used;
    used += (bytes + 63) / 64 * 64;
    return p;
  };
  const auto floats = [&](int64_t rows, int64_t columns) {
    return reinterpret_cast<float*>(take(rows * columns * static_cast<int64_t>(sizeof(float))));
  };
  const int64_t T = kPrefillRows, Q = c.n_heads * c.head_dim, G = c.n_kv_heads * c.head_dim;
  b->x = floats(T, c.hidden_size), b->h = floats(T, c.hidden_size), b->down = floats(T, c.hidden_size);
  b->q = floats(T, Q), b->q_rotated = floats(T, Q), b->attended = floats(T, Q);
  b->k = floats(T, G);
  b->gate = floats(T, c.intermediate_size), b->up = floats(T, c.intermediate_size);
  b->act = floats(T, c.intermediate_size);
  b->cos = floats(n_ctx, c.head_dim / 2), b->sin = floats(n_ctx, c.head_dim / 2);
  b->workspace = take(workspace);
  b->keys = floats(c.n_layers * n_ctx, G), b->values = floats(c.n_layers * n_ctx, G);
  return used;
}

namespace {

AttentionForwardArgs attention_args(const LlamaConfig& c, float* out, const float* q, const float* keys,
                                    const float* values, int64_t T, int64_t S) {
  AttentionForwardArgs a{};
  a.out = by_head(out, T, c.n_heads, c.head_dim);
  a.q = by_head(q, T, c.n_heads, c.head_dim);
  a.k = by_head(keys, S, c.n_kv_heads, c.head_dim);
  a.v = by_head(values, S, c.n_kv_heads, c.head_dim);
  a.B = 1, a.T = T, a.S = S, a.H = c.n_heads, a.G = c.n_kv_heads, a.D = c.head_dim;
  a.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  a.causal = 1;
  return a;
}

int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

}  // namespace

// The largest scratch of any call of this session: over rows 1 and T, over every matrix, over the longest attention.
int64_t Session::workspace_bytes(const Model& model, int64_t n_ctx) {
  const Kernels& k = *kernels();
  Context context;
  make_context(&context, 0);
  const int32_t threads = context.threads;
  const LlamaConfig& c = model.config();
  const int64_t C = c.hidden_size, F = c.intermediate_size, Q = c.n_heads * c.head_dim, G = c.n_kv_heads * c.head_dim;
  const int64_t shapes[][2] = {{c.vocab_size, C}, {Q, C}, {G, C}, {C, Q}, {F, C}, {C, F}};
  int64_t most = 0;
  float none = 0.0f;
  for (int64_t rows = 1; rows <= kPrefillRows; ++rows) {
    if (k.attention_forward_workspace != nullptr) {
      const AttentionForwardArgs a = attention_args(c, &none, &none, &none, &none, rows, n_ctx);
      most = larger(most, k.attention_forward_workspace(&a, threads));
    }
    if (k.matmul_workspace == nullptr) continue;
    for (const auto& shape : shapes) {
      View w = matrix(&none, shape[1]);
      for (const DType stored : {DType::f32, DType::bf16}) {
        w.dtype = stored;
        const MatmulArgs a = matmul_args(&none, &none, w, rows, shape[0], shape[1]);
        most = larger(most, k.matmul_workspace(&a, threads));
      }
    }
  }
  return most;
}

namespace {

bool cache_fits(const LlamaConfig& c, int64_t n_ctx) {  // in double: a damaged file may make the product overflow
  const double rows = static_cast<double>(c.n_layers) * static_cast<double>(n_ctx);
  return rows * static_cast<double>(c.n_kv_heads) * static_cast<double>(c.head_dim) < 1e14;
}

}  // namespace

int64_t Session::plan(const Model& model, int64_t n_ctx) {
  if (!cache_fits(model.config(), n_ctx)) return INT64_MAX;
  Buffers unused{};
  return place(model.config(), n_ctx, workspace_bytes(model, n_ctx), nullptr, &unused);
}

bool Session::init(const Model* model, int64_t n_ctx, Error* error) {
  const LlamaConfig& c = model->config();
  if (n_ctx < 1 || n_ctx > c.n_ctx)
    return fail(error, -1, "context of %lld tokens given, this model allows 1 to %lld", static_cast<long long>(n_ctx),
                static_cast<long long>(c.n_ctx));
  if (!cache_fits(c, n_ctx)) return no_memory(error, "the cache: with so many tokens it is larger than any memory");
  model_ = model, n_ctx_ = n_ctx;
  workspace_bytes_ = workspace_bytes(*model, n_ctx);
  block_bytes_ = place(c, n_ctx, workspace_bytes_, nullptr, &b_);
  void* p =
      mmap(nullptr, static_cast<size_t>(block_bytes_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    char what[96];
    std::snprintf(what, sizeof what, "a context of %lld tokens, which needs %lld bytes", static_cast<long long>(n_ctx),
                  static_cast<long long>(block_bytes_));
    return no_memory(error, what);
  }
  block_ = static_cast<uint8_t*>(p);
  place(c, n_ctx, workspace_bytes_, block_, &b_);
  rope_table(c.rope_theta, c.head_dim, n_ctx, b_.cos, b_.sin);
  return true;
}

bool Session::truncate(int64_t n, Error* error) {
  if (n < 0 || n > length_)
    return fail(error, -1, "cannot keep %lld tokens, the session has %lld", static_cast<long long>(n),
                static_cast<long long>(length_));
  length_ = n;
  return true;
}

// The pool is shared, the scratch is the session's own unless table or threads have changed since init.
template <class Args>
bool Session::call(const char* name, Status (*op)(Context*, const Args*), int64_t (*workspace)(const Args*, int32_t),
                   const Args& args, Error* error) {
  if (op == nullptr) return fail(error, -1, "table %s has no kernel %s", kernels()->name, name);
  Context context;
  make_context(&context, 0);
  const int64_t bytes = workspace == nullptr ? 0 : workspace(&args, context.threads);
  if (bytes > workspace_bytes_ && !make_context(&context, bytes)) return no_memory(error, name);
  if (bytes <= workspace_bytes_) context.workspace = b_.workspace, context.workspace_bytes = workspace_bytes_;
  const Status status = op(&context, &args);
  if (status == Status::ok) return true;
  return fail(error, -1, "%s of table %s: %s", name, kernels()->name, status_name(status));
}

#define GM_RUN(entry, args, error) call(#entry, kernels()->entry, kernels()->entry##_workspace, args, error)

bool Session::eval(const int32_t* ids, int64_t n, bool every, float* logits, Error* error) {
  const int64_t V = model_->config().vocab_size;
  if (n < 1) return fail(error, -1, "no token ids given, at least one is needed");
  if (n > n_ctx_ - length_)
    return fail(error, -1, "%lld tokens do not fit: %lld of %lld are used", static_cast<long long>(n),
                static_cast<long long>(length_), static_cast<long long>(n_ctx_));
  for (int64_t i = 0; i < n; ++i)
    if (ids[i] < 0 || ids[i] >= V)
      return fail(error, -1, "token id %d is outside 0 to %lld", ids[i], static_cast<long long>(V - 1));
  const int64_t before = length_;
  for (int64_t i = 0; i < n; i += kPrefillRows) {
    const int64_t T = n - i < kPrefillRows ? n - i : kPrefillRows;
    const bool last = i + T == n;
    const bool done = chunk(ids + i, T, error) &&
                      (every ? logits_of(0, T, logits + i * V, error) : !last || logits_of(T - 1, 1, logits, error));
    if (!done) {
      length_ = before;
      return false;
    }
    length_ += T;
  }
  return true;
}

bool Session::chunk(const int32_t* ids, int64_t T, Error* error) {
  const LlamaConfig& c = model_->config();
  EmbeddingForwardArgs a{};
  a.out = matrix(b_.x, c.hidden_size);
  a.weight = model_->embedding;
  a.ids.data = const_cast<int32_t*>(ids), a.ids.dtype = DType::i32, a.ids.strides[0] = 1;
  a.rows = T, a.cols = c.hidden_size, a.V = c.vocab_size;
  if (!GM_RUN(embedding_forward, a, error)) return false;
  for (int64_t i = 0; i < c.n_layers; ++i) {
    const Layer& l = model_->layers()[i];
    if (!attention_block(l, i, T, error) || !mlp_block(l, T, error)) return false;
  }
  return true;
}

bool Session::attention_block(const Layer& l, int64_t layer, int64_t T, Error* error) {
  const LlamaConfig& c = model_->config();
  const int64_t C = c.hidden_size, Q = c.n_heads * c.head_dim, G = c.n_kv_heads * c.head_dim;
  float* keys = b_.keys + layer * n_ctx_ * G;      // (n_ctx, G, D)
  float* values = b_.values + layer * n_ctx_ * G;  // (n_ctx, G, D)
  const bool projected =
      norm(b_.h, b_.x, l.attn_norm, T, error) && linear(b_.q, b_.h, l.q, T, Q, C, error) &&
      linear(b_.k, b_.h, l.k, T, G, C, error) && linear(values + length_ * G, b_.h, l.v, T, G, C, error) &&
      rotate(b_.q_rotated, b_.q, T, c.n_heads, error) && rotate(keys + length_ * G, b_.k, T, c.n_kv_heads, error);
  if (!projected) return false;
  const AttentionForwardArgs a = attention_args(c, b_.attended, b_.q_rotated, keys, values, T, length_ + T);
  return GM_RUN(attention_forward, a, error) && linear(b_.h, b_.attended, l.o, T, C, Q, error) &&
         combine(Elementwise::add, b_.x, b_.h, T * C, error);
}

bool Session::mlp_block(const Layer& l, int64_t T, Error* error) {
  const LlamaConfig& c = model_->config();
  const int64_t C = c.hidden_size, F = c.intermediate_size;
  if (!norm(b_.h, b_.x, l.ffn_norm, T, error) || !linear(b_.gate, b_.h, l.gate, T, F, C, error) ||
      !linear(b_.up, b_.h, l.up, T, F, C, error))
    return false;
  return swiglu(T, error) && linear(b_.down, b_.act, l.down, T, C, F, error) &&
         combine(Elementwise::add, b_.x, b_.down, T * C, error);
}

// silu(gate) * up; composed, as the engine does it, where a user's silu took the table's place.
bool Session::swiglu(int64_t T, Error* error) {
  const int64_t F = model_->config().intermediate_size;
  if (!fused("swiglu_forward")) {
    SiluForwardArgs a{};
    a.out = matrix(b_.act, F), a.x = matrix(b_.gate, F);
    a.rows = T, a.cols = F;
    return GM_RUN(silu_forward, a, error) && combine(Elementwise::mul, b_.act, b_.up, T * F, error);
  }
  SwigluForwardArgs a{};
  a.out = matrix(b_.act, F), a.gate = matrix(b_.gate, F), a.up = matrix(b_.up, F);
  a.rows = T, a.cols = F;
  return GM_RUN(swiglu_forward, a, error);
}

bool Session::logits_of(int64_t row, int64_t rows, float* out, Error* error) {
  const LlamaConfig& c = model_->config();
  return norm(b_.h, b_.x + row * c.hidden_size, model_->norm, rows, error) &&
         linear(out, b_.h, model_->head, rows, c.vocab_size, c.hidden_size, error);
}

bool Session::norm(float* out, const float* x, const View& weight, int64_t rows, Error* error) {
  const LlamaConfig& c = model_->config();
  RmsnormForwardArgs a{};
  a.out = matrix(out, c.hidden_size), a.x = matrix(x, c.hidden_size), a.weight = weight;
  a.rows = rows, a.cols = c.hidden_size, a.eps = c.norm_eps;
  return GM_RUN(rmsnorm_forward, a, error);
}

bool Session::linear(float* out, const float* x, const View& weight, int64_t rows, int64_t N, int64_t K, Error* error) {
  return GM_RUN(matmul, matmul_args(out, x, weight, rows, N, K), error);
}

bool Session::rotate(float* out, const float* x, int64_t T, int64_t heads, Error* error) {
  const LlamaConfig& c = model_->config();
  RopeArgs a{};
  a.out = by_head(out, T, heads, c.head_dim), a.x = by_head(x, T, heads, c.head_dim);
  a.cos = matrix(b_.cos, c.head_dim / 2), a.sin = matrix(b_.sin, c.head_dim / 2);
  a.start.data = &length_, a.start.dtype = DType::i64, a.start.strides[0] = 1;
  a.B = 1, a.T = T, a.H = heads, a.D = c.head_dim, a.positions = n_ctx_;
  a.interleaved = c.interleaved ? 1 : 0;
  return GM_RUN(rope, a, error);
}

bool Session::combine(Elementwise op, float* out, const float* x, int64_t n, Error* error) {  // out = out op x
  ElementwiseArgs a{};
  for (View* v : {&a.out, &a.a, &a.b}) v->dtype = DType::f32, v->strides[2] = n, v->strides[3] = 1;
  a.out.data = a.a.data = out, a.b.data = const_cast<float*>(x);
  a.n0 = a.n1 = a.n2 = 1, a.n3 = n;
  a.op = static_cast<int32_t>(op);
  return GM_RUN(elementwise, a, error);
}

}  // namespace gristmill::runtime
