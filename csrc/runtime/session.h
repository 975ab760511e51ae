// One text being read by a model: the key-value cache, and the steps that append to it, alone or together with other
// sessions. f32 logits equal the engine's byte for byte, in prefill and in decode, whatever else is in the step.
#pragma once
#include "forward.h"

namespace gristmill::runtime {

class Session;

struct Sequence {  // what one session of a step appends
  Session* session;
  const int32_t* ids;
  int64_t n;
};

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
  // The same for sessions of one model, each given once; logits (count, V) of the last id of each. On failure no
  // session has changed. The caller keeps other threads away from all of them.
  [[nodiscard]] static bool eval_batch(const Sequence* sequences, int64_t count, float* logits, Error* error);
  [[nodiscard]] bool truncate(int64_t n, Error* error);  // keeps the first n tokens
  int64_t length() const { return length_; }
  int64_t n_ctx() const { return cache_.n_ctx; }
  const Model& model() const { return *model_; }

 private:
  void place(Placer* placer, const Config& c);
  bool check(const int32_t* ids, int64_t n, Error* error) const;
  static bool check_batch(const Sequence* sequences, int64_t count, Error* error);
  static bool run(const Sequence* sequences, int64_t count, bool every, float* logits, Error* error);

  const Model* model_ = nullptr;
  int64_t length_ = 0;  // cache_.length runs ahead of it within a step
  uint8_t* block_ = nullptr;
  int64_t block_bytes_ = 0;
  Cache cache_{};
  Scratch scratch_{};
};

}  // namespace gristmill::runtime
