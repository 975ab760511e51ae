// GGUF files, read by mmap. Every rule of the format is checked before a byte is used; an error names the reason
// and the byte. Layout: magic, version, counts, key-value pairs, tensor infos, padding, tensor data.
#pragma once
#include "support.h"

namespace gristmill::runtime {

enum class ValueType : uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12
};

enum class TensorType : uint32_t { f32 = 0, f16 = 1, bf16 = 30 };  // what the session runs

struct Value {  // one key-value pair; numbers are read on demand because the file does not align them
  Str key;
  ValueType type;  // of the elements where is_array
  bool is_array;
  int64_t count;   // elements; 1 for a scalar
  int64_t offset;  // of the first element's bytes in the file
};

struct TensorInfo {
  Str name;
  uint32_t type;
  int32_t n_dims;
  int64_t dims[4];  // innermost first (a NumPy shape reversed); 1 beyond n_dims
  const uint8_t* data;
  int64_t offset, bytes;  // offset in the file
};

const char* tensor_type_name(uint32_t type);  // "f32", "q4_K", ...; null where unknown

class Gguf {
 public:
  Gguf() = default;
  Gguf(const Gguf&) = delete;
  Gguf& operator=(const Gguf&) = delete;
  ~Gguf();

  // verify: compare the digests the file carries (gristmill.digest.*) with its bytes.
  [[nodiscard]] bool open(const char* path, bool verify, Error* error);
  // The same over memory that the caller keeps.
  [[nodiscard]] bool open_memory(const void* data, int64_t bytes, bool verify, Error* error);

  const Array<Value>& values() const { return values_; }
  const Array<TensorInfo>& tensors() const { return tensors_; }
  const Value* find(const char* key) const;
  const TensorInfo* find_tensor(Str name) const;
  int64_t size() const { return size_; }
  void digest(char hex[65]) const;  // sha256 of the whole file

  // Element i of a value, converted where its type allows it, else false.
  bool as_int(const Value& v, int64_t i, int64_t* out) const;
  bool as_double(const Value& v, int64_t i, double* out) const;
  bool as_string(const Value& v, Str* out) const;  // scalar string
  // Walks an array of strings: *at starts at v.offset and moves behind the string read.
  Str next_string(int64_t* at) const;

 private:
  bool parse(Error* error);
  bool read_values(int64_t count, int64_t* at, Error* error);
  bool read_elements(Value* v, int64_t* at, Error* error);
  bool read_alignment(Error* error);
  bool read_tensors(int64_t count, int64_t* at, Error* error);
  bool read_tensor(TensorInfo* t, int64_t* at, Error* error);
  bool place_tensors(int64_t at, Error* error);
  bool check_digests(Error* error) const;
  bool check_header_digest(const Value& v, Error* error) const;
  bool need(int64_t at, int64_t bytes, const char* what, Error* error) const;
  bool read_string(int64_t* at, Str* out, const char* what, Error* error) const;
  template <class T>
  T load(int64_t at) const {
    T v;
    std::memcpy(&v, base_ + at, sizeof v);
    return v;
  }

  const uint8_t* base_ = nullptr;
  int64_t size_ = 0, data_start_ = 0, alignment_ = 32;
  bool mapped_ = false;
  Array<Value> values_;
  Array<TensorInfo> tensors_;
  StringIndex keys_, names_;
};

}  // namespace gristmill::runtime
