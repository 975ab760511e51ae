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

void copy(float* to, const float* from, int64_t n) { std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float)); }

}  // namespace

void Scratch::place(const LlamaConfig& c, Placer* p) {
  const int64_t T = kRows, C = c.hidden_size, F = c.intermediate_size, Q = c.n_heads * c.head_dim;
  const int64_t G = c.n_kv_heads * c.head_dim;
  x = p->floats(T, C), h = p->floats(T, C), down = p->floats(T, C);
  q = p->floats(T, Q), q_rotated = p->floats(T, Q), attended = p->floats(T, Q);
  k = p->floats(T, G), v = p->floats(T, G);
  gate = p->floats(T, F), up = p->floats(T, F), act = p->floats(T, F);
  workspace = p->bytes(workspace_bytes);
}

// Over rows 1 to T, over every matrix, over the longest attention.
int64_t workspace_bytes(const Model& model, int64_t n_ctx) {
  const Kernels& k = *kernels();
  Context context;
  make_context(&context, 0);
  const int32_t threads = context.threads;
  const LlamaConfig& c = model.config();
  const int64_t C = c.hidden_size, F = c.intermediate_size, Q = c.n_heads * c.head_dim, G = c.n_kv_heads * c.head_dim;
  const int64_t shapes[][2] = {{c.vocab_size, C}, {Q, C}, {G, C}, {C, Q}, {F, C}, {C, F}};
  int64_t most = 0;
  float none = 0.0f;
  for (int64_t rows = 1; rows <= kRows; ++rows) {
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
  if (!embed(error)) return false;
  for (int64_t i = 0; i < c_.n_layers; ++i) {
    const Layer& l = model_.layers()[i];
    if (!attention_block(l, i, error) || !mlp_block(l, error)) return false;
  }
  return true;
}

bool Forward::logits(const int64_t* rows, int64_t n, float* out, Error* error) {
  const int64_t C = c_.hidden_size;
  for (int64_t i = 0; i < n; ++i) copy(b_.down + i * C, b_.x + rows[i] * C, C);
  return norm(b_.h, b_.down, model_.norm, n, error) && linear(out, b_.h, model_.head, n, c_.vocab_size, C, error);
}

bool Forward::embed(Error* error) {
  for (int64_t i = 0; i < count_; ++i) {
    const Segment& s = segments_[i];
    EmbeddingForwardArgs a{};
    a.out = matrix(b_.x + s.row * c_.hidden_size, c_.hidden_size);
    a.weight = model_.embedding;
    a.ids.data = const_cast<int32_t*>(s.ids), a.ids.dtype = DType::i32, a.ids.strides[0] = 1;
    a.rows = s.T, a.cols = c_.hidden_size, a.V = c_.vocab_size;
    if (!GM_RUN(embedding_forward, a, error)) return false;
  }
  return true;
}

bool Forward::attention_block(const Layer& l, int64_t layer, Error* error) {
  const int64_t C = c_.hidden_size, Q = c_.n_heads * c_.head_dim, G = c_.n_kv_heads * c_.head_dim;
  if (!norm(b_.h, b_.x, l.attn_norm, rows_, error) || !linear(b_.q, b_.h, l.q, rows_, Q, C, error) ||
      !linear(b_.k, b_.h, l.k, rows_, G, C, error) || !linear(b_.v, b_.h, l.v, rows_, G, C, error))
    return false;
  for (int64_t i = 0; i < count_; ++i)
    if (!attend(segments_[i], layer, error)) return false;
  return linear(b_.h, b_.attended, l.o, rows_, C, Q, error) && combine(Elementwise::add, b_.x, b_.h, rows_ * C, error);
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
  if (!norm(b_.h, b_.x, l.ffn_norm, rows_, error) || !linear(b_.gate, b_.h, l.gate, rows_, F, C, error) ||
      !linear(b_.up, b_.h, l.up, rows_, F, C, error))
    return false;
  return swiglu(error) && linear(b_.down, b_.act, l.down, rows_, C, F, error) &&
         combine(Elementwise::add, b_.x, b_.down, rows_ * C, error);
}

// silu(gate) * up; composed, as the engine does it, where a user's silu took the table's place.
bool Forward::swiglu(Error* error) {
  const int64_t F = c_.intermediate_size;
  if (!fused("swiglu_forward")) {
    SiluForwardArgs a{};
    a.out = matrix(b_.act, F), a.x = matrix(b_.gate, F);
    a.rows = rows_, a.cols = F;
    return GM_RUN(silu_forward, a, error) && combine(Elementwise::mul, b_.act, b_.up, rows_ * F, error);
  }
  SwigluForwardArgs a{};
  a.out = matrix(b_.act, F), a.gate = matrix(b_.gate, F), a.up = matrix(b_.up, F);
  a.rows = rows_, a.cols = F;
  return GM_RUN(swiglu_forward, a, error);
}

bool Forward::norm(float* out, const float* x, const View& weight, int64_t rows, Error* error) {
  RmsnormForwardArgs a{};
  a.out = matrix(out, c_.hidden_size), a.x = matrix(x, c_.hidden_size), a.weight = weight;
  a.rows = rows, a.cols = c_.hidden_size, a.eps = c_.norm_eps;
  return GM_RUN(rmsnorm_forward, a, error);
}

bool Forward::linear(float* out, const float* x, const View& weight, int64_t rows, int64_t N, int64_t K, Error* error) {
  return GM_RUN(matmul, matmul_args(out, x, weight, rows, N, K), error);
}

bool Forward::rotate(float* out, const float* x, const Segment& s, int64_t heads, Error* error) {
  RopeArgs a{};
  a.out = by_head(out, s.T, heads, c_.head_dim), a.x = by_head(x, s.T, heads, c_.head_dim);
  a.cos = matrix(s.cache->cos, c_.head_dim / 2), a.sin = matrix(s.cache->sin, c_.head_dim / 2);
  a.start.data = &s.cache->length, a.start.dtype = DType::i64, a.start.strides[0] = 1;
  a.B = 1, a.T = s.T, a.H = heads, a.D = c_.head_dim, a.positions = s.cache->n_ctx;
  a.interleaved = c_.interleaved ? 1 : 0;
  return GM_RUN(rope, a, error);
}

bool Forward::combine(Elementwise op, float* out, const float* x, int64_t n, Error* error) {  // out = out op x
  ElementwiseArgs a{};
  for (View* v : {&a.out, &a.a, &a.b}) v->dtype = DType::f32, v->strides[2] = n, v->strides[3] = 1;
  a.out.data = a.a.data = out, a.b.data = const_cast<float*>(x);
  a.n0 = a.n1 = a.n2 = 1, a.n3 = n;
  a.op = static_cast<int32_t>(op);
  return GM_RUN(elementwise, a, error);
}

}  // namespace gristmill::runtime
