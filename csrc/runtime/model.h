// A model's weights as Views, named by what the forward pass does with them, and its tokenizer.
#pragma once
#include "../kernels.h"
#include "tokenizer.h"
#include "weights.h"

namespace gristmill::runtime {

struct Norm {
  View weight, bias;  // (C); bias null without
};

struct Linear {
  View weight, bias;  // (N, K), (N); bias null without
};

struct Layer {
  Norm attn_norm;
  Linear q, k, v, o;  // C -> H*D, G*D, G*D; H*D -> C
  Norm ffn_norm;
  Linear gate, up, down;  // C -> F, C -> F, F -> C; no gate where the architecture has none
};

class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  [[nodiscard]] bool open(const char* path, bool verify, Error* error);
  [[nodiscard]] bool open_memory(const void* data, int64_t bytes, bool verify, Error* error);
  // Live weights under Hugging Face's names; the caller keeps them. No tokenizer, no file.
  [[nodiscard]] bool from_views(const Config& config, const NamedView* views, int64_t count, Error* error);

  const Config& config() const { return config_; }
  const Gguf& file() const { return file_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const Array<Layer>& layers() const { return layers_; }
  View embedding{}, positions{}, head{};  // (V, C), (n_ctx, C) or null, (V, C)
  View rope_factors{};                    // (D/2) or null
  Norm norm{};

 private:
  bool load(Error* error);
  bool read_weights(Weights* weights, Error* error);
  bool read_factors(Weights* weights, Error* error);
  bool read_layer(Weights* weights, int64_t i, Error* error);

  Config config_;
  Gguf file_;
  Tokenizer tokenizer_;
  Array<Layer> layers_;
  Array<float> widened_;
};

}  // namespace gristmill::runtime
