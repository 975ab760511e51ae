#include "model.h"

namespace gristmill::runtime {
namespace {

long long number(int64_t n) { return static_cast<long long>(n); }

bool take_norm(Weights* w, const Config& c, const char* stem, int64_t layer, Norm* norm, Error* error) {
  *norm = {};
  return w->take(stem, "weight", layer, 0, c.hidden_size, &norm->weight, error) &&
         (!c.architecture->layer_norm || w->take(stem, "bias", layer, 0, c.hidden_size, &norm->bias, error));
}

bool take_linear(Weights* w, const Config& c, const char* stem, int64_t layer, int64_t rows, int64_t columns,
                 Linear* linear, Error* error) {
  *linear = {};
  const bool biased = c.architecture->biases || w->has(stem, "bias", layer);
  return w->take(stem, "weight", layer, rows, columns, &linear->weight, error) &&
         (!biased || w->take(stem, "bias", layer, 0, rows, &linear->bias, error));
}

void skip_rows(View* v, int64_t rows) {
  if (v->data == nullptr) return;
  v->data = static_cast<uint8_t*>(v->data) + rows * v->strides[0] * item_size(v->dtype);
}

Linear from_row(Linear all, int64_t row) {
  skip_rows(&all.weight, row);
  skip_rows(&all.bias, row);
  return all;
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
  const bool given = file_.as_string(*v, &name);
  config_.architecture = find_architecture(name);
  if (!given || config_.architecture == nullptr)
    return fail(error, v->offset, "architecture '%.*s' is not supported, %s",
                static_cast<int>(name.size < 40 ? name.size : 40), name.data == nullptr ? "" : name.data,
                architecture_names());
  if (!read_config(file_, &config_, error)) return false;
  Weights weights(*config_.architecture, file_, &widened_);
  if (!weights.reserve(error) || !read_weights(&weights, error)) return false;
  if (weights.taken() != file_.tensors().size())
    return fail(error, -1, "the file has %lld tensors, a %s of %lld layers uses %lld: it is another architecture",
                number(file_.tensors().size()), config_.architecture->name, number(config_.n_layers),
                number(weights.taken()));
  if (file_.find("tokenizer.ggml.model") == nullptr) return true;
  if (!tokenizer_.load(file_, error)) return false;
  if (tokenizer_.vocab_size() == config_.vocab_size) return true;
  return fail(error, -1, "the tokenizer has %lld tokens, the embedding %lld rows", number(tokenizer_.vocab_size()),
              number(config_.vocab_size));
}

bool Model::from_views(const Config& config, const NamedView* views, int64_t count, Error* error) {
  config_ = config;
  if (!check_config(config_, error)) return false;
  Weights weights(*config_.architecture, views, count);
  return read_weights(&weights, error);
}

bool Model::read_weights(Weights* w, Error* error) {
  const Config& c = config_;
  const int64_t C = c.hidden_size;
  if (!layers_.resize(c.n_layers)) return no_memory(error, "the layers");
  if (!w->take("token_embd", "weight", -1, c.vocab_size, C, &embedding, error)) return false;
  if (!c.architecture->rotary && !w->take("position_embd", "weight", -1, c.n_ctx, C, &positions, error)) return false;
  if (c.architecture->rotary && w->has("rope_freqs", "weight", -1) && !read_factors(w, error)) return false;
  if (!take_norm(w, c, "output_norm", -1, &norm, error)) return false;
  head = embedding;
  if (w->has("output", "weight", -1) && !w->take("output", "weight", -1, c.vocab_size, C, &head, error)) return false;
  for (int64_t i = 0; i < c.n_layers; ++i)
    if (!read_layer(w, i, error)) return false;
  return true;
}

bool Model::read_factors(Weights* w, Error* error) {
  if (!w->take("rope_freqs", "weight", -1, 0, config_.head_dim / 2, &rope_factors, error)) return false;
  const auto* factors = static_cast<const float*>(rope_factors.data);
  for (int64_t i = 0; i < config_.head_dim / 2; ++i)
    if (!(factors[i] >= 1.0f) || factors[i] > 1e6f)
      return fail(error, -1, "rope_freqs.weight has %g, numbers from 1 to 1e6 are allowed",
                  static_cast<double>(factors[i]));
  return true;
}

bool Model::read_layer(Weights* w, int64_t i, Error* error) {
  const Config& c = config_;
  const Architecture& a = *c.architecture;
  const int64_t C = c.hidden_size, F = c.intermediate_size, Q = c.n_heads * c.head_dim, G = c.n_kv_heads * c.head_dim;
  Layer& l = layers_[i];
  const auto linear = [&](const char* stem, int64_t rows, int64_t columns, Linear* out) {
    return take_linear(w, c, stem, i, rows, columns, out, error);
  };
  if (!take_norm(w, c, "attn_norm", i, &l.attn_norm, error)) return false;
  if (a.fused_qkv) {
    if (!linear("attn_qkv", Q + 2 * G, C, &l.q)) return false;
    l.k = from_row(l.q, Q), l.v = from_row(l.q, Q + G);
  } else if (!linear("attn_q", Q, C, &l.q) || !linear("attn_k", G, C, &l.k) || !linear("attn_v", G, C, &l.v)) {
    return false;
  }
  if (!linear("attn_output", C, Q, &l.o) || !take_norm(w, c, "ffn_norm", i, &l.ffn_norm, error)) return false;
  if (a.gated && !linear("ffn_gate", F, C, &l.gate)) return false;
  return linear("ffn_up", F, C, &l.up) && linear("ffn_down", C, F, &l.down);
}

}  // namespace gristmill::runtime
