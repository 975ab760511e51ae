// One text being read by a llama: the key-value cache, and the forward pass on the plain kernels of a table, op for op
// as the training engine runs it. So f32 logits equal the engine's byte for byte, in prefill and in decode.
#pragma once
#include "../backend.h"
#include "model.h"

namespace gristmill::runtime {

constexpr int64_t kPrefillRows = 64;  // tokens evaluated at once; does not show in the bits

class Session {
 public:
  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  // The model must outlive the session. All memory is taken here, for the table and the threads of this moment.
  [[nodiscard]] bool init(const Model* model, int64_t n_ctx, Error* error);
  static int64_t plan(const Model& model, int64_t n_ctx);  // bytes that init takes; INT64_MAX: too many to count

  // Appends n ids. logits (V) of the last one, or with every = true (n, V) of each.
  [[nodiscard]] bool eval(const int32_t* ids, int64_t n, bool every, float* logits, Error* error);
  [[nodiscard]] bool truncate(int64_t n, Error* error);  // keeps the first n tokens
  int64_t length() const { return length_; }
  int64_t n_ctx() const { return n_ctx_; }
  const Model& model() const { return *model_; }

 private:
  struct Buffers {                    // offsets, then pointers, into one block; T = kPrefillRows
    float *x, *h, *down;              // (T, C)
    float *q, *q_rotated, *attended;  // (T, H*D)
    float* k;                         // (T, G*D) before rotation
    float *gate, *up, *act;           // (T, F)
    float *cos, *sin;                 // (n_ctx, D/2)
    float *keys, *values;             // (layers, n_ctx, G, D)
    uint8_t* workspace;
  };
  static int64_t place(const LlamaConfig& c, int64_t n_ctx, int64_t workspace, uint8_t* base, Buffers* b);
  static int64_t workspace_bytes(const Model& model, int64_t n_ctx);
  bool chunk(const int32_t* ids, int64_t T, Error* error);
  bool attention_block(const Layer& l, int64_t layer, int64_t T, Error* error);
  bool mlp_block(const Layer& l, int64_t T, Error* error);
  bool logits_of(int64_t row, int64_t rows, float* out, Error* error);
  bool norm(float* out, const float* x, const View& weight, int64_t rows, Error* error);
  bool linear(float* out, const float* x, const View& weight, int64_t rows, int64_t N, int64_t K, Error* error);
  bool rotate(float* out, const float* x, int64_t T, int64_t heads, Error* error);
  bool swiglu(int64_t T, Error* error);
  bool combine(Elementwise op, float* out, const float* x, int64_t n, Error* error);
  template <class Args>
  bool call(const char* name, Status (*op)(Context*, const Args*), int64_t (*workspace)(const Args*, int32_t),
            const Args& args, Error* error);

  const Model* model_ = nullptr;
  int64_t n_ctx_ = 0, length_ = 0, workspace_bytes_ = 0;
  uint8_t* block_ = nullptr;
  int64_t block_bytes_ = 0;
  Buffers b_{};
};

}  // namespace gristmill::runtime
