// The forward pass over a few rows on the plain kernels of a table, op for op as the training engine runs it. The rows
// may belong to several sessions: every weight is read once for all of them, attention reads each session's own cache.
// No row depends on a row of another session, so the bits are those of each session alone.
#pragma once
#include "../backend.h"
#include "model.h"

namespace gristmill::runtime {

constexpr int64_t kRows = 64;  // rows of one pass; does not show in the bits

struct Cache {
  float *keys, *values;  // (layers, n_ctx, G, D)
  float *cos, *sin;      // (n_ctx, D/2); null without rotation
  int64_t n_ctx, length;
};

struct Segment {  // the next T tokens of a session, at rows row .. row + T of the pass
  Cache* cache;
  const int32_t* ids;
  int64_t row, T;
};

class Placer {  // hands out the parts of one block, or counts its bytes where base is null
 public:
  explicit Placer(uint8_t* base) : base_(base) {}
  uint8_t* bytes(int64_t n) {
    uint8_t* p = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (n + 63) / 64 * 64;
    return p;
  }
  float* floats(int64_t rows, int64_t columns) {
    return reinterpret_cast<float*>(bytes(rows * columns * static_cast<int64_t>(sizeof(float))));
  }
  int64_t used() const { return used_; }

 private:
  uint8_t* base_;
  int64_t used_ = 0;
};

struct Scratch {                    // of one pass; T = kRows
  float *x, *h, *down;              // (T, C)
  float *q, *q_rotated, *attended;  // (T, H*D)
  float *k, *v;                     // (T, G*D) before rotation
  float *gate, *up, *act;           // (T, F); no gate where the architecture has none
  uint8_t* workspace;
  int64_t workspace_bytes;

  void place(const Config& c, Placer* placer);  // workspace_bytes is set before
};

// The largest scratch of any kernel of a pass, for the table and the threads of this moment.
int64_t workspace_bytes(const Model& model, int64_t n_ctx);

class Forward {
 public:
  Forward(const Model& model, const Scratch& scratch, const Segment* segments, int64_t count);

  // Keys and values of all rows go behind each cache's `length`, which the caller then moves on.
  [[nodiscard]] bool run(Error* error);
  // Logits (n, V) of the given rows, after run.
  [[nodiscard]] bool logits(const int64_t* rows, int64_t n, float* out, Error* error);

 private:
  bool embed(const View& table, int64_t V, const int32_t* ids, float* out, int64_t rows, Error* error);
  bool embed_segment(const Segment& s, Error* error);
  bool attention_block(const Layer& l, int64_t layer, Error* error);
  bool attend(const Segment& s, int64_t layer, Error* error);
  bool mlp_block(const Layer& l, Error* error);
  bool norm(float* out, const float* x, const Norm& norm, int64_t rows, Error* error);
  bool linear(float* out, const float* x, const Linear& l, int64_t rows, int64_t N, int64_t K, Error* error);
  bool rotate(float* out, const float* x, const Segment& s, int64_t heads, Error* error);
  bool swiglu(Error* error);
  bool gelu(Error* error);
  bool combine(Elementwise op, float* out, const View& x, int64_t rows, int64_t columns, Error* error);
  template <class Args>
  bool call(const char* name, Status (*op)(Context*, const Args*), int64_t (*workspace)(const Args*, int32_t),
            const Args& args, Error* error);

  const Model& model_;
  const Config& c_;
  const Scratch& b_;
  const Segment* segments_;
  int64_t count_, rows_ = 0;
};

}  // namespace gristmill::runtime
