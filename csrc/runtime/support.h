// What the runtime uses in place of exceptions and allocating containers: an error with a reason and a byte
// offset, a malloc-backed array whose growth can fail, a string that points into the mapped file.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

namespace gristmill::runtime {

struct Error {
  char text[320] = {};
  int64_t offset = -1;  // byte in the file where the reason stands; -1: no file is concerned
  bool memory = false;  // nothing is wrong with file or arguments, memory ran out
};

// Fills `error` and returns false, so that a check reads `return fail(...)`.
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
inline bool fail(Error* error, int64_t offset, const char* format, ...) {
  if (error == nullptr) return false;
  va_list args;
  va_start(args, format);
  int n = std::vsnprintf(error->text, sizeof error->text, format, args);
  va_end(args);
  error->offset = offset, error->memory = false;
  if (offset >= 0)  // the text quotes a file that may be damaged
    for (char* c = error->text; *c != 0; ++c)
      if (*c < 32 || *c > 126) *c = '?';
  const auto used = static_cast<size_t>(n < 0 ? 0 : n);
  if (offset >= 0 && used < sizeof error->text)
    std::snprintf(error->text + used, sizeof error->text - used, " (at byte %lld)", static_cast<long long>(offset));
  return false;
}

inline bool no_memory(Error* error, const char* what) {
  fail(error, -1, "out of memory for %s", what);
  if (error != nullptr) error->memory = true;
  return false;
}

struct Str {  // not terminated; points into the mapped file
  const char* data = nullptr;
  int64_t size = 0;
};

inline Str str(const char* s) { return {s, static_cast<int64_t>(std::strlen(s))}; }
inline bool equal(Str a, Str b) {
  return a.size == b.size && (a.size == 0 || std::memcmp(a.data, b.data, static_cast<size_t>(a.size)) == 0);
}
inline bool starts_with(Str s, Str prefix) { return s.size >= prefix.size && equal({s.data, prefix.size}, prefix); }
// FNV-1a, 64 bit: the strings are a file's keys and tokens, probing is linear over a half-empty table.
inline uint64_t hash(Str s) {
  uint64_t h = 14695981039346656037u;
  for (int64_t i = 0; i < s.size; ++i) h = (h ^ static_cast<uint8_t>(s.data[i])) * 1099511628211u;
  return h ^ (h >> 32);
}
inline int64_t power_of_two_above(int64_t n) {
  int64_t p = 16;
  while (p < n) p *= 2;
  return p;
}

template <class T>
class Array {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Array() = default;
  Array(Array&& o) noexcept { *this = static_cast<Array&&>(o); }
  Array& operator=(Array&& o) noexcept {
    std::swap(data_, o.data_), std::swap(size_, o.size_), std::swap(room_, o.room_);
    return *this;
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { std::free(data_); }

  // False where memory is short; the contents stay. New elements are zero bytes.
  [[nodiscard]] bool resize(int64_t n) {
    if (n > room_ && !reserve(n)) return false;
    if (n > size_) std::memset(static_cast<void*>(data_ + size_), 0, bytes(n - size_));
    size_ = n;
    return true;
  }
  [[nodiscard]] bool push(const T& value) {
    if (size_ == room_ && !reserve(room_ < 8 ? 16 : room_ * 2)) return false;
    data_[size_++] = value;
    return true;
  }
  [[nodiscard]] bool append(const T* values, int64_t n) {
    if (size_ + n > room_ && !reserve(size_ + n > room_ * 2 ? size_ + n : room_ * 2)) return false;
    if (n > 0) std::memcpy(static_cast<void*>(data_ + size_), values, bytes(n));
    size_ += n;
    return true;
  }
  void clear() { size_ = 0; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }

 private:
  static size_t bytes(int64_t n) { return static_cast<size_t>(n) * sizeof(T); }
  bool reserve(int64_t n) {
    if (n < 0 || static_cast<uint64_t>(n) > SIZE_MAX / 2 / sizeof(T)) return false;
    void* grown = std::realloc(static_cast<void*>(data_), bytes(n));
    if (grown == nullptr) return false;
    data_ = static_cast<T*>(grown);
    room_ = n;
    return true;
  }
  T* data_ = nullptr;
  int64_t size_ = 0, room_ = 0;
};

// String -> index, open addressing over strings kept elsewhere.
class StringIndex {
 public:
  [[nodiscard]] bool reset(int64_t count) {
    slots_.clear();
    return slots_.resize(power_of_two_above(count * 2));
  }
  // The index already stored for `key`, or -1 after storing `value`.
  int64_t insert(Str key, int64_t value) {
    Slot* slot = find_slot(key);
    if (slot->used) return slot->value;
    *slot = {key, value, true};
    return -1;
  }
  int64_t find(Str key) const {
    if (slots_.size() == 0) return -1;
    const Slot* slot = const_cast<StringIndex*>(this)->find_slot(key);
    return slot->used ? slot->value : -1;
  }

 private:
  struct Slot {
    Str key;
    int64_t value;
    bool used;
  };
  Slot* find_slot(Str key) {
    const auto mask = static_cast<uint64_t>(slots_.size() - 1);
    uint64_t i = hash(key) & mask;
    while (slots_[static_cast<int64_t>(i)].used && !equal(slots_[static_cast<int64_t>(i)].key, key)) i = (i + 1) & mask;
    return &slots_[static_cast<int64_t>(i)];
  }
  Array<Slot> slots_;
};

}  // namespace gristmill::runtime
