// What an architecture is made of, as data: one session runs them all. Sizes come from the file or the config.
#pragma once
#include "gguf.h"
#include "support.h"

namespace gristmill::runtime {

struct Name {
  const char *stem, *live;  // in a GGUF file, in Hugging Face's folder
};

struct Architecture {
  const char* name;        // general.architecture of a file, model_type of a config
  bool layer_norm;         // norms take the mean away and have a bias; else root mean square alone
  bool rotary;             // positions turn q and k; else a table of positions is added to the embedding
  bool gated;              // silu(gate) * up; else gelu(up)
  bool fused_qkv;          // one matrix and one bias for q, k and v
  bool biases;             // of every product but the head; else those that are there
  bool transposed;         // live matrices of the layers are (in, out), as Conv1D keeps them
  const char* epsilon;     // key of a file, behind the name
  const char* live_layer;  // of the live tensors, followed by the layer's number
  Name names[13];          // of tensors without ".weight" and ".bias"; the last is null
};

const Architecture* find_architecture(Str name);  // null where unknown
const char* architecture_names();                 // for messages

struct Config {
  const Architecture* architecture = nullptr;
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, n_layers = 0;
  int64_t n_heads = 0, n_kv_heads = 0, head_dim = 0, n_ctx = 0;
  float norm_eps = 0.0f, rope_theta = 10000.0f;
  bool gelu_tanh = true;     // GPT-2's formula; else the exact one, which no GGUF has
  bool interleaved = false;  // rows of q and k in GGUF's order: pairs, not halves
};

[[nodiscard]] bool read_config(const Gguf& file, Config* config, Error* error);
// What the kernels can run, wherever the config comes from.
[[nodiscard]] bool check_config(const Config& config, Error* error);

}  // namespace gristmill::runtime
