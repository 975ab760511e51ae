#include "model.h"

#include <cfloat>
#include <cmath>

#include "f16.h"

namespace gristmill::runtime {
namespace {

constexpr int64_t kMaxDimension = int64_t{1} << 24;  // keeps every product of two sizes below 2^48

bool read_size(const Gguf& file, const char* key, int64_t fallback, int64_t* out, Error* error) {
  const Value* v = file.find(key);
  if (v == nullptr) {
    *out = fallback;
    return fallback >= 0 || fail(error, -1, "the file has no %s", key);
  }
  if (v->is_array || !file.as_int(*v, 0, out) || *out < 1 || *out > kMaxDimension)
    return fail(error, v->offset, "%s is no integer from 1 to %lld", key, static_cast<long long>(kMaxDimension));
  return true;
}

bool read_float(const Gguf& file, const char* key, double fallback, float* out, Error* error) {
  const Value* v = file.find(key);
  double x = fallback;
  if (v == nullptr && fallback < 0.0) return fail(error, -1, "the file has no %s", key);
  if (v != nullptr && (v->is_array || !file.as_double(*v, 0, &x)))
    return fail(error, v->offset, "%s is no number", key);
  const bool fits = std::fabs(x) <= static_cast<double>(FLT_MAX);
  *out = fits ? static_cast<float>(x) : static_cast<float>(INFINITY);  // check_config refuses it, and NaN as well
  return true;
}

constexpr int64_t kMaxHeadDim = 256;               // of the attention kernels
constexpr int64_t kMaxContext = int64_t{1} << 20;  // rope_table's angles are accurate to 1.6 million

// What the kernels can run, wherever the weights come from.
bool check_config(const LlamaConfig& c, Error* error) {
  const auto n = [](int64_t x) { return static_cast<long long>(x); };
  if (c.n_heads % c.n_kv_heads != 0)
    return fail(error, -1, "%lld heads are no multiple of %lld key-value heads", n(c.n_heads), n(c.n_kv_heads));
  if (c.head_dim % 2 != 0 || c.head_dim > kMaxHeadDim)
    return fail(error, -1, "the head dimension is %lld, even numbers from 2 to %lld are allowed", n(c.head_dim),
                n(kMaxHeadDim));
  if (c.n_layers > 4096) return fail(error, -1, "%lld layers, at most 4096 are allowed", n(c.n_layers));
  if (c.n_ctx > kMaxContext)
    return fail(error, -1, "the context has %lld tokens, at most %lld are allowed", n(c.n_ctx), n(kMaxContext));
  if (!(c.rope_theta >= 1.0f) || std::isinf(c.rope_theta))
    return fail(error, -1, "the base of the rotation is %g, finite numbers from 1 on are allowed",
                static_cast<double>(c.rope_theta));
  if (!(c.norm_eps > 0.0f) || std::isinf(c.norm_eps))
    return fail(error, -1, "the epsilon of the norms is %g, finite numbers above 0 are allowed",
                static_cast<double>(c.norm_eps));
  return true;
}

}  // namespace

bool Model::open(const char* path, bool verify, Error* error) { return file_.open(path, verify, error) && load(error); }

bool Model::open_memory(const void* data, int64_t bytes, bool verify, Error* error) {
  return file_.open_memory(data, bytes, verify, error) && load(error);
}

bool Model::load(Error* error) {
  const Value* v = file_.find("general.architecture");
  Str name;
  if (v == nullptr) return fail(error, -1, "the file has no general.architecture");
  if (!file_.as_string(*v, &name) || !equal(name, str("llama")))
    return fail(error, v->offset, "architecture '%.*s' is not supported, 'llama' is",
                static_cast<int>(name.size < 40 ? name.size : 40), name.data == nullptr ? "" : name.data);
  if (!read_config(error) || !read_weights(error)) return false;
  if (file_.find("tokenizer.ggml.model") == nullptr) return true;
  if (!tokenizer_.load(file_, error)) return false;
  if (tokenizer_.vocab_size() == config_.vocab_size) return true;
  return fail(error, -1, "the tokenizer has %lld tokens, the embedding %lld rows",
              static_cast<long long>(tokenizer_.vocab_size()), static_cast<long long>(config_.vocab_size));
}

bool Model::read_config(Error* error) {
  LlamaConfig& c = config_;
  const TensorInfo* embedding = file_.find_tensor(str("token_embd.weight"));
  if (embedding == nullptr) return fail(error, -1, "the file has no tensor token_embd.weight");
  if (file_.find("llama.rope.scaling.type") != nullptr || file_.find("llama.expert_count") != nullptr ||
      file_.find_tensor(str("rope_freqs.weight")) != nullptr)
    return fail(error, -1, "this llama has scaled rotation or experts, which are not supported");
  int64_t rotated = 0, value_dim = 0;
  const bool sizes = read_size(file_, "llama.context_length", -1, &c.n_ctx, error) &&
                     read_size(file_, "llama.embedding_length", -1, &c.hidden_size, error) &&
                     read_size(file_, "llama.block_count", -1, &c.n_layers, error) &&
                     read_size(file_, "llama.feed_forward_length", -1, &c.intermediate_size, error) &&
                     read_size(file_, "llama.attention.head_count", -1, &c.n_heads, error) &&
                     read_size(file_, "llama.attention.head_count_kv", c.n_heads, &c.n_kv_heads, error) &&
                     read_size(file_, "llama.attention.key_length", c.hidden_size / c.n_heads, &c.head_dim, error) &&
                     read_size(file_, "llama.attention.value_length", c.hidden_size / c.n_heads, &value_dim, error) &&
                     read_size(file_, "llama.rope.dimension_count", c.head_dim, &rotated, error) &&
                     read_size(file_, "llama.vocab_size", embedding->dims[1], &c.vocab_size, error) &&
                     read_float(file_, "llama.attention.layer_norm_rms_epsilon", -1.0, &c.norm_eps, error) &&
                     read_float(file_, "llama.rope.freq_base", 10000.0, &c.rope_theta, error);
  if (!sizes) return false;
  if (rotated != c.head_dim || value_dim != c.head_dim)
    return fail(error, -1, "head dimensions differ: key %lld, value %lld, rotated %lld",
                static_cast<long long>(c.head_dim), static_cast<long long>(value_dim), static_cast<long long>(rotated));
  c.interleaved = true;
  return check_config(c, error);
}

bool Model::read_weights(Error* error) {
  const LlamaConfig& c = config_;
  const int64_t C = c.hidden_size, F = c.intermediate_size, Q = c.n_heads * c.head_dim, K = c.n_kv_heads * c.head_dim;
  int64_t wide = 0;
  for (const TensorInfo& t : file_.tensors())
    if (t.type == static_cast<uint32_t>(TensorType::f16)) wide += t.bytes / 2;
  if (!widened_.resize(wide) || !layers_.resize(c.n_layers)) return no_memory(error, "the weights");
  int64_t used = 2 + 9 * c.n_layers;
  if (!weight("token_embd.weight", c.vocab_size, C, &embedding, error) ||
      !weight("output_norm.weight", 0, C, &norm, error))
    return false;
  head = embedding;
  if (file_.find_tensor(str("output.weight")) != nullptr) {
    used += 1;
    if (!weight("output.weight", c.vocab_size, C, &head, error)) return false;
  }
  for (int64_t i = 0; i < c.n_layers; ++i) {
    Layer& l = layers_[i];
    const struct {
      const char* name;
      int64_t rows, columns;  // rows 0: a vector
      View* view;
    } parts[] = {{"attn_norm", 0, C, &l.attn_norm},
                 {"attn_q", Q, C, &l.q},
                 {"attn_k", K, C, &l.k},
                 {"attn_v", K, C, &l.v},
                 {"attn_output", C, Q, &l.o},
                 {"ffn_norm", 0, C, &l.ffn_norm},
                 {"ffn_gate", F, C, &l.gate},
                 {"ffn_up", F, C, &l.up},
                 {"ffn_down", C, F, &l.down}};
    for (const auto& part : parts) {
      char name[64];
      std::snprintf(name, sizeof name, "blk.%lld.%s.weight", static_cast<long long>(i), part.name);
      if (!weight(name, part.rows, part.columns, part.view, error)) return false;
    }
  }
  if (used == file_.tensors().size()) return true;
  return fail(error, -1, "the file has %lld tensors, a llama of %lld layers uses %lld: it is another architecture",
              static_cast<long long>(file_.tensors().size()), static_cast<long long>(c.n_layers),
              static_cast<long long>(used));
}

bool Model::weight(const char* name, int64_t rows, int64_t columns, View* view, Error* error) {
  const TensorInfo* t = file_.find_tensor(str(name));
  if (t == nullptr) return fail(error, -1, "the file has no tensor %s", name);
  const int64_t want_rows = rows == 0 ? 1 : rows;
  if (t->n_dims != (rows == 0 ? 1 : 2) || t->dims[0] != columns || t->dims[1] != want_rows)
    return fail(error, t->offset, "%s is (%lld, %lld), expected (%lld, %lld)", name, static_cast<long long>(t->dims[1]),
                static_cast<long long>(t->dims[0]), static_cast<long long>(want_rows), static_cast<long long>(columns));
  *view = {};
  view->strides[0] = columns, view->strides[1] = 1;
  if (rows == 0) view->strides[0] = 1;
  view->data = const_cast<uint8_t*>(t->data);  // the mapping is read-only; kernels do not write inputs
  view->dtype = DType::f32;
  if (t->type == static_cast<uint32_t>(TensorType::f32)) return true;
  if (t->type == static_cast<uint32_t>(TensorType::f16)) return widen(*t, view, error);
  if (t->type == static_cast<uint32_t>(TensorType::bf16) && rows > 0) {
    view->dtype = DType::bf16;
    return true;
  }
  return fail(error, t->offset, "%s is stored as %s; matrices may be f32, f16 or bf16, norms f32 or f16", name,
              tensor_type_name(t->type));
}

bool Model::widen(const TensorInfo& t, View* view, Error* error) {
  const int64_t n = t.bytes / 2;
  if (widened_used_ + n > widened_.size()) return fail(error, t.offset, "tensor is used twice");
  float* out = widened_.data() + widened_used_;
  for (int64_t i = 0; i < n; ++i) {
    uint16_t h;
    std::memcpy(&h, t.data + 2 * i, 2);
    out[i] = f16_to_f32(h);
  }
  widened_used_ += n;
  view->data = out;
  return true;
}

namespace {

const NamedView* find_view(const NamedView* views, int64_t count, const char* name) {
  for (int64_t i = 0; i < count; ++i)
    if (std::strcmp(views[i].name, name) == 0) return &views[i];
  return nullptr;
}

bool take(const NamedView* views, int64_t count, const char* name, int64_t rows, int64_t columns, View* view,
          Error* error) {
  const NamedView* v = find_view(views, count, name);
  if (v == nullptr) return fail(error, -1, "no tensor %s given", name);
  const int64_t n_dims = rows == 0 ? 1 : 2;
  const int64_t last = v->n_dims > 0 ? v->shape[v->n_dims - 1] : 0, first = v->n_dims == 2 ? v->shape[0] : 0;
  if (v->n_dims != n_dims || last != columns || first != rows)
    return fail(error, -1, "%s has %d dimensions (%lld, %lld), expected %lld dimensions (%lld, %lld)", name, v->n_dims,
                static_cast<long long>(first), static_cast<long long>(last), static_cast<long long>(n_dims),
                static_cast<long long>(rows), static_cast<long long>(columns));
  if (v->view.dtype != DType::f32 && (rows == 0 || v->view.dtype != DType::bf16))
    return fail(error, -1, "%s has a type the session does not run: matrices may be f32 or bf16, norms f32", name);
  if (columns > 1 && v->view.strides[n_dims - 1] != 1)
    return fail(error, -1, "%s has stride %lld in its last dimension, 1 is allowed: make it contiguous", name,
                static_cast<long long>(v->view.strides[n_dims - 1]));
  *view = v->view;
  return true;
}

}  // namespace

bool Model::from_views(const LlamaConfig& config, const NamedView* views, int64_t count, Error* error) {
  config_ = config;
  const LlamaConfig& c = config_;
  for (const int64_t n :
       {c.vocab_size, c.hidden_size, c.intermediate_size, c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim, c.n_ctx})
    if (n < 1 || n > kMaxDimension)
      return fail(error, -1, "a size of the configuration is %lld", static_cast<long long>(n));
  if (!check_config(c, error)) return false;
  const int64_t C = c.hidden_size, F = c.intermediate_size, Q = c.n_heads * c.head_dim, K = c.n_kv_heads * c.head_dim;
  if (!layers_.resize(c.n_layers)) return no_memory(error, "the layers");
  if (!take(views, count, "model.embed_tokens.weight", c.vocab_size, C, &embedding, error) ||
      !take(views, count, "model.norm.weight", 0, C, &norm, error))
    return false;
  head = embedding;
  if (find_view(views, count, "lm_head.weight") != nullptr &&
      !take(views, count, "lm_head.weight", c.vocab_size, C, &head, error))
    return false;
  for (int64_t i = 0; i < c.n_layers; ++i) {
    Layer& l = layers_[i];
    const struct {
      const char* name;
      int64_t rows, columns;
      View* view;
    } parts[] = {{"input_layernorm", 0, C, &l.attn_norm}, {"self_attn.q_proj", Q, C, &l.q},
                 {"self_attn.k_proj", K, C, &l.k},        {"self_attn.v_proj", K, C, &l.v},
                 {"self_attn.o_proj", C, Q, &l.o},        {"post_attention_layernorm", 0, C, &l.ffn_norm},
                 {"mlp.gate_proj", F, C, &l.gate},        {"mlp.up_proj", F, C, &l.up},
                 {"mlp.down_proj", C, F, &l.down}};
    for (const auto& part : parts) {
      char name[96];
      std::snprintf(name, sizeof name, "model.layers.%lld.%s.weight", static_cast<long long>(i), part.name);
      if (!take(views, count, name, part.rows, part.columns, part.view, error)) return false;
    }
  }
  return true;
}

}  // namespace gristmill::runtime
