#include "forward.h"

#include <cmath>

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

AttentionForwardArgs attention_args(const Config& c, float* out, const float* q, const float* keys, const float* values,
                                    int64_t T, int64_t S) {
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

void copy(float* to, const float* from, int64_t n) { std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float)); }

}  // namespace

void Scratch::place(const Config& c, Placer* p) {
  const int64_t T = kRows, C = c.hidden_size, F = c.intermediate_size, Q = c.n_heads * c.head_dim;
  const int64_t G = c.n_kv_heads * c.head_dim;
  x = p->floats(T, C), h = p->floats(T, C), down = p->floats(T, C);
  q = p->floats(T, Q), q_rotated = p->floats(T, Q), attended = p->floats(T, Q);
  k = p->floats(T, G), v = p->floats(T, G);
  gate = c.architecture->gated ? p->floats(T, F) : nullptr;
  up = p->floats(T, F), act = p->floats(T, F);
  workspace = p->bytes(workspace_bytes);
}

// Over rows 1 to T, over every matrix, over attention to any number of keys: more of them may want less.
int64_t workspace_bytes(const Model& model, int64_t n_ctx) {
  const Kernels& k = *kernels();
  Context context;
  make_context(&context, 0);
  const int32_t threads = context.threads;
  const Config& c = model.config();
  const int64_t C = c.hidden_size, F = c.intermediate_size, Q = c.n_heads * c.head_dim, G = c.n_kv_heads * c.head_dim;
  const int64_t shapes[][2] = {{c.vocab_size, C}, {Q, C}, {G, C}, {C, Q}, {F, C}, {C, F}};
  int64_t most = 0;
  float none = 0.0f;
  for (int64_t rows = 1; rows <= kRows; ++rows) {
    for (int64_t keys = n_ctx; keys > 0 && k.attention_forward_workspace != nullptr; keys -= kAttentionKeys) {
      const AttentionForwardArgs a = attention_args(c, &none, &none, &none, &none, rows, keys);
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

// The pool is shared, the scratch is the session's own unless table or threads have changed since it was made.
template <class Args>
bool Forward::call(const char* name, Status (*op)(Context*, const Args*), int64_t (*workspace)(const Args*, int32_t),
                   const Args& args, Error* error) {
  if (op == nullptr) return fail(error, -1, "table %s has no kernel %s", kernels()->name, name);
  Context context;
  make_context(&context, 0);
  const int64_t bytes = workspace == nullptr ? 0 : workspace(&args, context.threads);
  if (bytes > b_.workspace_bytes && !make_context(&context, bytes)) return no_memory(error, name);
  if (bytes <= b_.workspace_bytes) context.workspace = b_.workspace, context.workspace_bytes = b_.workspace_bytes;
  const Status status = op(&context, &args);
  if (status == Status::ok) return true;
  return fail(error, -1, "%s of table %s: %s", name, kernels()->name, status_name(status));
}

#define GM_RUN(entry, args, error) call(#entry, kernels()->entry, kernels()->entry##_workspace, args, error)

Forward::Forward(const Model& model, const Scratch& scratch, const Segment* segments, int64_t count)
    : model_(model), c_(model.config()), b_(scratch), segments_(segments), count_(count) {
  for (int64_t i = 0; i < count; ++i) rows_ += segments[i].T;
}

bool Forward::run(Error* error) {
  for (int64_t i = 0; i < count_; ++i)
    if (!embed_segment(segments_[i], error)) return false;
  for (int64_t i = 0; i < c_.n_layers; ++i) {
    const Layer& l = model_.layers()[i];
    if (!attention_block(l, i, error) || !mlp_block(l, error)) return false;
  }
  return true;
}

bool Forward::logits(const int64_t* rows, int64_t n, float* out, Error* error) {
  const int64_t C = c_.hidden_size;
  for (int64_t i = 0; i < n; ++i) copy(b_.down + i * C, b_.x + rows[i] * C, C);
  return norm(b_.h, b_.down, model_.norm, n, error) && linear(out, b_.h, {model_.head, {}}, n, c_.vocab_size, C, error);
}

bool Forward::embed(const View& table, int64_t V, const int32_t* ids, float* out, int64_t rows, Error* error) {
  EmbeddingForwardArgs a{};
  a.out = matrix(out, c_.hidden_size);
  a.weight = table;
  a.ids.data = const_cast<int32_t*>(ids), a.ids.dtype = DType::i32, a.ids.strides[0] = 1;
  a.rows = rows, a.cols = c_.hidden_size, a.V = V;
  return GM_RUN(embedding_forward, a, error);
}

bool Forward::embed_segment(const Segment& s, Error* error) {
  const int64_t C = c_.hidden_size;
  float* x = b_.x + s.row * C;
  if (!embed(model_.embedding, c_.vocab_size, s.ids, x, s.T, error)) return false;
  if (model_.positions.data == nullptr) return true;
  int32_t at[kRows];
  for (int64_t t = 0; t < s.T; ++t) at[t] = static_cast<int32_t>(s.cache->length + t);
  return embed(model_.positions, c_.n_ctx, at, b_.h, s.T, error) &&
         combine(Elementwise::add, x, matrix(b_.h, C), s.T, C, error);
}

bool Forward::attention_block(const Layer& l, int64_t layer, Error* error) {
  const int64_t C = c_.hidden_size, Q = c_.n_heads * c_.head_dim, G = c_.n_kv_heads * c_.head_dim;
  if (!norm(b_.h, b_.x, l.attn_norm, rows_, error) || !linear(b_.q, b_.h, l.q, rows_, Q, C, error) ||
      !linear(b_.k, b_.h, l.k, rows_, G, C, error) || !linear(b_.v, b_.h, l.v, rows_, G, C, error))
    return false;
  for (int64_t i = 0; i < count_; ++i)
    if (!attend(segments_[i], layer, error)) return false;
  return linear(b_.h, b_.attended, l.o, rows_, C, Q, error) &&
         combine(Elementwise::add, b_.x, matrix(b_.h, C), rows_, C, error);
}

bool Forward::attend(const Segment& s, int64_t layer, Error* error) {
  const int64_t Q = c_.n_heads * c_.head_dim, G = c_.n_kv_heads * c_.head_dim;
  const Cache& cache = *s.cache;
  float* keys = cache.keys + layer * cache.n_ctx * G;      // (n_ctx, G, D)
  float* values = cache.values + layer * cache.n_ctx * G;  // (n_ctx, G, D)
  float* q = b_.q_rotated + s.row * Q;
  copy(values + cache.length * G, b_.v + s.row * G, s.T * G);
  if (!rotate(q, b_.q + s.row * Q, s, c_.n_heads, error) ||
      !rotate(keys + cache.length * G, b_.k + s.row * G, s, c_.n_kv_heads, error))
    return false;
  const AttentionForwardArgs a = attention_args(c_, b_.attended + s.row * Q, q, keys, values, s.T, cache.length + s.T);
  return GM_RUN(attention_forward, a, error);
}

bool Forward::mlp_block(const Layer& l, Error* error) {
  const int64_t C = c_.hidden_size, F = c_.intermediate_size;
  const bool gated = c_.architecture->gated;
  if (!norm(b_.h, b_.x, l.ffn_norm, rows_, error) || (gated && !linear(b_.gate, b_.h, l.gate, rows_, F, C, error)) ||
      !linear(b_.up, b_.h, l.up, rows_, F, C, error))
    return false;
  return (gated ? swiglu(error) : gelu(error)) && linear(b_.down, b_.act, l.down, rows_, C, F, error) &&
         combine(Elementwise::add, b_.x, matrix(b_.down, C), rows_, C, error);
}

// silu(gate) * up; composed, as the engine does it, where a user's silu took the table's place.
bool Forward::swiglu(Error* error) {
  const int64_t F = c_.intermediate_size;
  if (!fused("swiglu_forward")) {
    SiluForwardArgs a{};
    a.out = matrix(b_.act, F), a.x = matrix(b_.gate, F);
    a.rows = rows_, a.cols = F;
    return GM_RUN(silu_forward, a, error) && combine(Elementwise::mul, b_.act, matrix(b_.up, F), rows_, F, error);
  }
  SwigluForwardArgs a{};
  a.out = matrix(b_.act, F), a.gate = matrix(b_.gate, F), a.up = matrix(b_.up, F);
  a.rows = rows_, a.cols = F;
  return GM_RUN(swiglu_forward, a, error);
}

bool Forward::gelu(Error* error) {
  const int64_t F = c_.intermediate_size;
  GeluForwardArgs a{};
  a.out = matrix(b_.act, F), a.x = matrix(b_.up, F);
  a.rows = rows_, a.cols = F, a.approximate = c_.gelu_tanh ? 1 : 0;
  return GM_RUN(gelu_forward, a, error);
}

bool Forward::norm(float* out, const float* x, const Norm& norm, int64_t rows, Error* error) {
  const int64_t C = c_.hidden_size;
  if (c_.architecture->layer_norm) {
    LayernormForwardArgs a{};
    a.out = matrix(out, C), a.x = matrix(x, C), a.weight = norm.weight, a.bias = norm.bias;
    a.rows = rows, a.cols = C, a.eps = c_.norm_eps;
    return GM_RUN(layernorm_forward, a, error);
  }
  RmsnormForwardArgs a{};
  a.out = matrix(out, C), a.x = matrix(x, C), a.weight = norm.weight;
  a.rows = rows, a.cols = C, a.eps = c_.norm_eps;
  return GM_RUN(rmsnorm_forward, a, error);
}

bool Forward::linear(float* out, const float* x, const Linear& l, int64_t rows, int64_t N, int64_t K, Error* error) {
  if (!GM_RUN(matmul, matmul_args(out, x, l.weight, rows, N, K), error)) return false;
  return l.bias.data == nullptr || combine(Elementwise::add, out, f32(l.bias.data, 0, 1), rows, N, error);
}

// Without rotation a copy: q and the cached keys lie where the attention wants them.
bool Forward::rotate(float* out, const float* x, const Segment& s, int64_t heads, Error* error) {
  if (!c_.architecture->rotary) return copy(out, x, s.T * heads * c_.head_dim), true;
  RopeArgs a{};
  a.out = by_head(out, s.T, heads, c_.head_dim), a.x = by_head(x, s.T, heads, c_.head_dim);
  a.cos = matrix(s.cache->cos, c_.head_dim / 2), a.sin = matrix(s.cache->sin, c_.head_dim / 2);
  a.start.data = &s.cache->length, a.start.dtype = DType::i64, a.start.strides[0] = 1;
  a.B = 1, a.T = s.T, a.H = heads, a.D = c_.head_dim, a.positions = s.cache->n_ctx;
  a.interleaved = c_.interleaved ? 1 : 0;
  return GM_RUN(rope, a, error);
}

// out = out op x, both (rows, columns); x may repeat one row.
bool Forward::combine(Elementwise op, float* out, const View& x, int64_t rows, int64_t columns, Error* error) {
  ElementwiseArgs a{};
  a.out = a.a = f32(out, 0, 0, columns, 1);
  a.b = f32(x.data, 0, 0, x.strides[0], x.strides[1]);
  a.n0 = a.n1 = 1, a.n2 = rows, a.n3 = columns;
  a.op = static_cast<int32_t>(op);
  return GM_RUN(elementwise, a, error);
}

}  // namespace gristmill::runtime
