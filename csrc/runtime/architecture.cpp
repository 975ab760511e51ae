#include "architecture.h"

#include <cfloat>
#include <cmath>

namespace gristmill::runtime {
namespace {

constexpr Architecture kArchitectures[] = {{.name = "llama",
                                            .layer_norm = false,
                                            .rotary = true,
                                            .gated = true,
                                            .fused_qkv = false,
                                            .biases = false,
                                            .transposed = false,
                                            .epsilon = "attention.layer_norm_rms_epsilon",
                                            .live_layer = "model.layers.",
                                            .names = {{"token_embd", "model.embed_tokens"},
                                                      {"output_norm", "model.norm"},
                                                      {"output", "lm_head"},
                                                      {"attn_norm", "input_layernorm"},
                                                      {"attn_q", "self_attn.q_proj"},
                                                      {"attn_k", "self_attn.k_proj"},
                                                      {"attn_v", "self_attn.v_proj"},
                                                      {"attn_output", "self_attn.o_proj"},
                                                      {"ffn_norm", "post_attention_layernorm"},
                                                      {"ffn_gate", "mlp.gate_proj"},
                                                      {"ffn_up", "mlp.up_proj"},
                                                      {"ffn_down", "mlp.down_proj"},
                                                      {nullptr, nullptr}}},
                                           {.name = "gpt2",
                                            .layer_norm = true,
                                            .rotary = false,
                                            .gated = false,
                                            .fused_qkv = true,
                                            .biases = true,
                                            .transposed = true,
                                            .epsilon = "attention.layer_norm_epsilon",
                                            .live_layer = "transformer.h.",
                                            .names = {{"token_embd", "transformer.wte"},
                                                      {"position_embd", "transformer.wpe"},
                                                      {"output_norm", "transformer.ln_f"},
                                                      {"output", "lm_head"},
                                                      {"attn_norm", "ln_1"},
                                                      {"attn_qkv", "attn.c_attn"},
                                                      {"attn_output", "attn.c_proj"},
                                                      {"ffn_norm", "ln_2"},
                                                      {"ffn_up", "mlp.c_fc"},
                                                      {"ffn_down", "mlp.c_proj"},
                                                      {nullptr, nullptr}}}};

constexpr int64_t kMaxDimension = int64_t{1} << 24;  // keeps every product of two sizes below 2^48
constexpr int64_t kMaxHeadDim = 256;                 // of the attention kernels
constexpr int64_t kMaxContext = int64_t{1} << 20;    // rope_table's angles are accurate to 1.6 million

long long number(int64_t n) { return static_cast<long long>(n); }

struct Keys {  // of one file and architecture
  const Gguf& file;
  const char* prefix;
  Error* error;
  char key[96] = {};

  const Value* find(const char* name) {
    std::snprintf(key, sizeof key, "%s.%s", prefix, name);
    return file.find(key);
  }
  bool size(const char* name, int64_t fallback, int64_t* out) {
    const Value* v = find(name);
    *out = fallback;
    if (v == nullptr) return fallback >= 0 || fail(error, -1, "the file has no %s", key);
    if (v->is_array || !file.as_int(*v, 0, out) || *out < 1 || *out > kMaxDimension)
      return fail(error, v->offset, "%s is no integer from 1 to %lld", key, number(kMaxDimension));
    return true;
  }
  bool real(const char* name, double fallback, float* out) {
    const Value* v = find(name);
    double x = fallback;
    if (v == nullptr && fallback < 0.0) return fail(error, -1, "the file has no %s", key);
    if (v != nullptr && (v->is_array || !file.as_double(*v, 0, &x)))
      return fail(error, v->offset, "%s is no number", key);
    const bool fits = std::fabs(x) <= static_cast<double>(FLT_MAX);
    *out = fits ? static_cast<float>(x) : static_cast<float>(INFINITY);  // check_config refuses it, and NaN as well
    return true;
  }
  bool absent(const char* name) {  // or said to be none
    const Value* v = find(name);
    int64_t n = 1;
    Str s;
    return v == nullptr || (!v->is_array && file.as_int(*v, 0, &n) && n == 0) ||
           (file.as_string(*v, &s) && equal(s, str("none")));
  }
  bool one(const char* name) {  // a factor that changes nothing, or none
    const Value* v = find(name);
    double x = 0.0;
    return v == nullptr || (!v->is_array && file.as_double(*v, 0, &x) && (x == 0.0 || x == 1.0));
  }
  bool scaled_rotation() {  // as llama.cpp reads it: a factor without a type is linear
    if (find("rope.scaling.type") != nullptr) return !absent("rope.scaling.type");
    return !one("rope.scaling.factor") || !one("rope.scale_linear");
  }
};

}  // namespace

const Architecture* find_architecture(Str name) {
  for (const Architecture& a : kArchitectures)
    if (equal(name, str(a.name))) return &a;
  return nullptr;
}

const char* architecture_names() { return "'llama' and 'gpt2' are"; }

bool read_config(const Gguf& file, Config* config, Error* error) {
  Config& c = *config;
  const Architecture& a = *c.architecture;
  const TensorInfo* embedding = file.find_tensor(str("token_embd.weight"));
  if (embedding == nullptr) return fail(error, -1, "the file has no tensor token_embd.weight");
  Keys k{file, a.name, error};
  if (k.scaled_rotation() || !k.absent("expert_count"))
    return fail(error, -1, "this %s has scaled rotation or experts, which are not supported", a.name);
  int64_t rotated = 0, value_dim = 0;
  const bool sizes =
      k.size("context_length", -1, &c.n_ctx) && k.size("embedding_length", -1, &c.hidden_size) &&
      k.size("block_count", -1, &c.n_layers) && k.size("feed_forward_length", -1, &c.intermediate_size) &&
      k.size("attention.head_count", -1, &c.n_heads) && k.size("attention.head_count_kv", c.n_heads, &c.n_kv_heads) &&
      k.size("attention.key_length", c.hidden_size / c.n_heads, &c.head_dim) &&
      k.size("attention.value_length", c.hidden_size / c.n_heads, &value_dim) &&
      k.size("rope.dimension_count", c.head_dim, &rotated) && k.size("vocab_size", embedding->dims[1], &c.vocab_size) &&
      k.real(a.epsilon, -1.0, &c.norm_eps) && k.real("rope.freq_base", 10000.0, &c.rope_theta);
  if (!sizes) return false;
  if (rotated != c.head_dim || value_dim != c.head_dim)
    return fail(error, -1, "head dimensions differ: key %lld, value %lld, rotated %lld", number(c.head_dim),
                number(value_dim), number(rotated));
  c.interleaved = a.rotary;
  return check_config(c, error);
}

bool check_config(const Config& c, Error* error) {
  for (const int64_t n :
       {c.vocab_size, c.hidden_size, c.intermediate_size, c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim, c.n_ctx})
    if (n < 1 || n > kMaxDimension) return fail(error, -1, "a size of the configuration is %lld", number(n));
  if (c.n_heads % c.n_kv_heads != 0)
    return fail(error, -1, "%lld heads are no multiple of %lld key-value heads", number(c.n_heads),
                number(c.n_kv_heads));
  if (c.head_dim > kMaxHeadDim || (c.architecture->rotary && c.head_dim % 2 != 0))
    return fail(error, -1, "the head dimension is %lld, %s to %lld are allowed", number(c.head_dim),
                c.architecture->rotary ? "even numbers from 2" : "1", number(kMaxHeadDim));
  if (c.n_layers > 4096) return fail(error, -1, "%lld layers, at most 4096 are allowed", number(c.n_layers));
  if (c.n_ctx > kMaxContext)
    return fail(error, -1, "the context has %lld tokens, at most %lld are allowed", number(c.n_ctx),
                number(kMaxContext));
  if (!(c.rope_theta >= 1.0f) || std::isinf(c.rope_theta))
    return fail(error, -1, "the base of the rotation is %g, finite numbers from 1 on are allowed",
                static_cast<double>(c.rope_theta));
  if (!(c.norm_eps > 0.0f) || std::isinf(c.norm_eps))
    return fail(error, -1, "the epsilon of the norms is %g, finite numbers above 0 are allowed",
                static_cast<double>(c.norm_eps));
  return true;
}

}  // namespace gristmill::runtime
