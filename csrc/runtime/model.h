// A llama model's weights as Views, from a GGUF file or from live tensors, without copy where a kernel takes the
// stored type (f32, bf16). f16 is widened to f32 at load, exactly.
#pragma once
#include "../kernels.h"
#include "gguf.h"
#include "support.h"
#include "tokenizer.h"

namespace gristmill::runtime {

struct LlamaConfig {
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, n_layers = 0;
  int64_t n_heads = 0, n_kv_heads = 0, head_dim = 0, n_ctx = 0;
  float norm_eps = 0.0f, rope_theta = 10000.0f;
  bool interleaved = false;  // rows of q and k in GGUF's order: pairs, not halves
};

struct Layer {
  View attn_norm, q, k, v, o;     // (C), (H*D, C), (KV*D, C), (KV*D, C), (C, H*D)
  View ffn_norm, gate, up, down;  // (C), (F, C), (F, C), (C, F)
};

struct NamedView {
  const char* name;
  View view;
  int32_t n_dims;
  int64_t shape[4];
};

class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  [[nodiscard]] bool open(const char* path, bool verify, Error* error);
  [[nodiscard]] bool open_memory(const void* data, int64_t bytes, bool verify, Error* error);
  // Live weights under Hugging Face's names; the caller keeps them. No tokenizer, no file.
  [[nodiscard]] bool from_views(const LlamaConfig& config, const NamedView* views, int64_t count, Error* error);

  const LlamaConfig& config() const { return config_; }
  const Gguf& file() const { return file_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const Array<Layer>& layers() const { return layers_; }
  View embedding{}, norm{}, head{};  // (V, C), (C), (V, C)

 private:
  bool load(Error* error);
  bool read_config(Error* error);
  bool read_weights(Error* error);
  bool weight(const char* name, int64_t rows, int64_t columns, View* view, Error* error);
  bool widen(const TensorInfo& t, View* view, Error* error);

  LlamaConfig config_;
  Gguf file_;
  Tokenizer tokenizer_;
  Array<Layer> layers_;
  Array<float> widened_;
  int64_t widened_used_ = 0;
};

}  // namespace gristmill::runtime
