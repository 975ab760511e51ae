// Where a model's weights come from, a GGUF file or live tensors, as Views without copy where a kernel takes the stored
// type. f16, and bf16 vectors, are widened to f32 at load, exactly.
#pragma once
#include "../core/types.h"
#include "architecture.h"

namespace gristmill::runtime {

struct NamedView {
  const char* name;
  View view;
  int32_t n_dims;
  int64_t shape[4];
};

class Weights {
 public:
  Weights(const Architecture& architecture, const Gguf& file, Array<float>* widened)
      : architecture_(architecture), file_(&file), widened_(widened) {}
  Weights(const Architecture& architecture, const NamedView* views, int64_t count)
      : architecture_(architecture), views_(views), count_(count) {}

  [[nodiscard]] bool reserve(Error* error);  // memory for what is widened; before all others

  // The tensor STEM.SUFFIX of layer `layer` (-1: of the model). rows 0: a vector.
  [[nodiscard]] bool take(const char* stem, const char* suffix, int64_t layer, int64_t rows, int64_t columns,
                          View* view, Error* error);
  bool has(const char* stem, const char* suffix, int64_t layer) const;
  int64_t taken() const { return taken_; }

 private:
  struct Found {
    View view{};
    int32_t n_dims = 0;
    int64_t rows = 0, columns = 0, offset = -1;
  };
  void full_name(char* name, size_t room, const char* stem, const char* suffix, int64_t layer) const;
  bool find(const char* name, Found* found, Error* error);
  bool widen(const TensorInfo& t, Found* found, Error* error);

  const Architecture& architecture_;
  const Gguf* file_ = nullptr;
  const NamedView* views_ = nullptr;
  int64_t count_ = 0, taken_ = 0, widened_used_ = 0;
  Array<float>* widened_ = nullptr;
};

}  // namespace gristmill::runtime
