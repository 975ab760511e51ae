// The reader's rules are those of the GGUF specification and of the reference reader (counts bounded by the bytes
// that remain, unique names, tensors packed in file order without holes), plus two of our own: padding is zero, and
// nothing follows the last tensor. So no byte of a file with digests can change unnoticed.
#include "gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "sha256.h"

namespace gristmill::runtime {
namespace {

constexpr int64_t kMaxString = int64_t{1} << 30;
constexpr int64_t kMinPair = 8 + 1 + 4 + 1;            // key length, key, type, smallest value
constexpr int64_t kMinTensor = 8 + 1 + 4 + 8 + 4 + 8;  // name length, name, n_dims, one dim, type, offset
constexpr uint64_t kMaxEntries = 1 << 16;              // keys, tensors; a flipped count must not cost memory
constexpr int64_t kHeader = 24;                        // magic, version, two counts

struct Block {
  uint32_t id;
  const char* name;
  int64_t elements, bytes;
};
constexpr Block kBlocks[] = {
    {0, "f32", 1, 4},       {1, "f16", 1, 2},       {2, "q4_0", 32, 18},    {3, "q4_1", 32, 20},
    {6, "q5_0", 32, 22},    {7, "q5_1", 32, 24},    {8, "q8_0", 32, 34},    {10, "q2_K", 256, 84},
    {11, "q3_K", 256, 110}, {12, "q4_K", 256, 144}, {13, "q5_K", 256, 176}, {14, "q6_K", 256, 210},
    {15, "q8_K", 256, 292}, {24, "i8", 1, 1},       {25, "i16", 1, 2},      {26, "i32", 1, 4},
    {27, "i64", 1, 8},      {28, "f64", 1, 8},      {30, "bf16", 1, 2},     {39, "mxfp4", 32, 17}};

const Block* find_block(uint32_t type) {
  for (const Block& b : kBlocks)
    if (b.id == type) return &b;
  return nullptr;
}

int64_t element_bytes(ValueType type) {  // 0 for strings and arrays
  constexpr int64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kBytes[static_cast<uint32_t>(type)];
}

int printable(Str s) { return static_cast<int>(s.size < 64 ? s.size : 64); }

bool valid_key(Str key) {  // lower_snake.dotted; '-' occurs in names of architectures
  if (key.size < 1 || key.size > 65535) return false;
  for (int64_t i = 0; i < key.size; ++i) {
    const char c = key.data[i];
    const bool word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    const bool dot = c == '.' && i > 0 && i + 1 < key.size && key.data[i - 1] != '.';
    if (!word && !dot) return false;
  }
  return true;
}

int64_t padded(int64_t n, int64_t alignment) { return (n + alignment - 1) / alignment * alignment; }

}  // namespace

const char* tensor_type_name(uint32_t type) {
  const Block* b = find_block(type);
  return b == nullptr ? nullptr : b->name;
}

Gguf::~Gguf() {
  if (mapped_) munmap(const_cast<uint8_t*>(base_), static_cast<size_t>(size_));
}

bool Gguf::open(const char* path, bool verify, Error* error) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(error, -1, "cannot open %s: %s", path, std::strerror(errno));
  struct stat info{};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return fail(error, -1, "%s is not a regular file", path);
  }
  if (info.st_size < kHeader) {
    close(fd);
    return fail(error, 0, "file has %lld bytes, a GGUF header needs 24", static_cast<long long>(info.st_size));
  }
  void* p = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (p == MAP_FAILED && errno == ENOMEM) return no_memory(error, path);
  if (p == MAP_FAILED) return fail(error, -1, "cannot map %s: %s", path, std::strerror(errno));
  mapped_ = true;
  return open_memory(p, info.st_size, verify, error);
}

bool Gguf::open_memory(const void* data, int64_t bytes, bool verify, Error* error) {
  base_ = static_cast<const uint8_t*>(data);
  size_ = bytes;
  return parse(error) && (!verify || check_digests(error));
}

bool Gguf::need(int64_t at, int64_t bytes, const char* what, Error* error) const {
  if (bytes <= size_ - at) return true;
  return fail(error, at, "%s needs %lld bytes but %lld remain: the file is truncated or damaged", what,
              static_cast<long long>(bytes), static_cast<long long>(size_ - at));
}

bool Gguf::read_string(int64_t* at, Str* out, const char* what, Error* error) const {
  if (!need(*at, 8, what, error)) return false;
  const auto n = load<uint64_t>(*at);
  if (n > static_cast<uint64_t>(kMaxString))
    return fail(error, *at, "%s is %llu bytes long, at most 2^30 are allowed", what,
                static_cast<unsigned long long>(n));
  *at += 8;
  if (!need(*at, static_cast<int64_t>(n), what, error)) return false;
  *out = {reinterpret_cast<const char*>(base_ + *at), static_cast<int64_t>(n)};
  *at += static_cast<int64_t>(n);
  return true;
}

bool Gguf::parse(Error* error) {
  if (size_ < kHeader) return need(0, kHeader, "header", error);
  if (std::memcmp(base_, "GGUF", 4) != 0)
    return fail(error, 0, "not a GGUF file: it starts with %02x %02x %02x %02x instead of 'GGUF'", base_[0], base_[1],
                base_[2], base_[3]);
  const auto version = load<uint32_t>(4);
  if ((version & 0xffff) == 0 && version != 0) return fail(error, 4, "big-endian GGUF: convert it to little-endian");
  if (version < 2 || version > 3) return fail(error, 4, "GGUF version %u, versions 2 and 3 are read", version);
  const auto tensors = load<uint64_t>(8), pairs = load<uint64_t>(16);
  const auto room = static_cast<uint64_t>(size_ - kHeader);
  if (tensors > room / kMinTensor || tensors > kMaxEntries)
    return fail(error, 8, "%llu tensors cannot fit the file", static_cast<unsigned long long>(tensors));
  if (pairs > room / kMinPair || pairs > kMaxEntries)
    return fail(error, 16, "%llu keys cannot fit the file", static_cast<unsigned long long>(pairs));
  int64_t at = kHeader;
  return read_values(static_cast<int64_t>(pairs), &at, error) && read_alignment(error) &&
         read_tensors(static_cast<int64_t>(tensors), &at, error) && place_tensors(at, error);
}

bool Gguf::read_values(int64_t count, int64_t* at, Error* error) {
  if (!values_.resize(count) || !keys_.reset(count)) return no_memory(error, "the keys");
  for (int64_t i = 0; i < count; ++i) {
    Value& v = values_[i];
    const int64_t key_at = *at;
    if (!read_string(at, &v.key, "key", error)) return false;
    if (!valid_key(v.key))
      return fail(error, key_at, "key '%.*s' is not lower_snake.dotted ASCII of 1 to 65535 bytes", printable(v.key),
                  v.key.data);
    if (keys_.insert(v.key, i) >= 0)
      return fail(error, key_at, "key '%.*s' appears twice", printable(v.key), v.key.data);
    if (!need(*at, 4, "type of a value", error)) return false;
    auto type = load<uint32_t>(*at);
    v.is_array = type == static_cast<uint32_t>(ValueType::array);
    v.count = 1;
    *at += 4;
    if (v.is_array) {
      if (!need(*at, 12, "array", error)) return false;
      type = load<uint32_t>(*at);
      const auto n = load<uint64_t>(*at + 4);
      if (type == static_cast<uint32_t>(ValueType::array))
        return fail(error, *at, "key '%.*s' is an array of arrays, which no reader supports", printable(v.key),
                    v.key.data);
      if (n > static_cast<uint64_t>(size_))
        return fail(error, *at + 4, "array '%.*s' of %llu elements cannot fit the file", printable(v.key), v.key.data,
                    static_cast<unsigned long long>(n));
      v.count = static_cast<int64_t>(n);
      *at += 12;
    }
    if (type > static_cast<uint32_t>(ValueType::f64))
      return fail(error, *at - (v.is_array ? 12 : 4), "key '%.*s' has unknown value type %u", printable(v.key),
                  v.key.data, type);
    v.type = static_cast<ValueType>(type);
    if (!read_elements(&v, at, error)) return false;
  }
  return true;
}

bool Gguf::read_elements(Value* v, int64_t* at, Error* error) {
  v->offset = *at;
  if (v->type == ValueType::string) {
    Str s;
    for (int64_t i = 0; i < v->count; ++i)
      if (!read_string(at, &s, "string", error)) return false;
    return true;
  }
  const int64_t bytes = element_bytes(v->type);  // count <= file size, so the product stays far below 2^63
  if (!need(*at, v->count * bytes, "value", error)) return false;
  if (v->type == ValueType::boolean)
    for (int64_t i = 0; i < v->count; ++i)
      if (base_[*at + i] > 1)
        return fail(error, *at + i, "bool of key '%.*s' is %u, only 0 and 1 are allowed", printable(v->key),
                    v->key.data, base_[*at + i]);
  *at += v->count * bytes;
  return true;
}

bool Gguf::read_alignment(Error* error) {
  const Value* v = find("general.alignment");
  if (v == nullptr) return true;
  if (v->is_array || v->type != ValueType::u32) return fail(error, v->offset, "general.alignment must be one u32");
  const auto n = load<uint32_t>(v->offset);
  if (n < 8 || (n & (n - 1)) != 0 || n > (1u << 20))
    return fail(error, v->offset, "general.alignment is %u, a power of two from 8 to 1048576 is allowed", n);
  alignment_ = n;
  return true;
}

bool Gguf::read_tensors(int64_t count, int64_t* at, Error* error) {
  if (!tensors_.resize(count) || !names_.reset(count)) return no_memory(error, "the tensors");
  for (int64_t i = 0; i < count; ++i) {
    const int64_t start = *at;
    if (!read_tensor(&tensors_[i], at, error)) return false;
    const Str name = tensors_[i].name;
    if (names_.insert(name, i) >= 0)
      return fail(error, start, "tensor '%.*s' appears twice", printable(name), name.data);
  }
  return true;
}

bool Gguf::read_tensor(TensorInfo* t, int64_t* at, Error* error) {
  const int64_t start = *at;
  if (!read_string(at, &t->name, "tensor name", error)) return false;
  const int shown = printable(t->name);
  const char* name = t->name.data;
  if (t->name.size < 1 || t->name.size > 63)
    return fail(error, start, "tensor name has %lld bytes, 1 to 63 are allowed", static_cast<long long>(t->name.size));
  if (!need(*at, 4, "tensor", error)) return false;
  const auto n_dims = load<uint32_t>(*at);
  if (n_dims < 1 || n_dims > 4)
    return fail(error, *at, "tensor '%.*s' has %u dimensions, 1 to 4 are allowed", shown, name, n_dims);
  *at += 4;
  if (!need(*at, 8 * int64_t{n_dims} + 12, "tensor", error)) return false;
  t->n_dims = static_cast<int32_t>(n_dims);
  int64_t elements = 1;
  for (uint32_t d = 0; d < 4; ++d) {
    t->dims[d] = 1;
    if (d >= n_dims) continue;
    const auto n = load<uint64_t>(*at);
    if (n < 1 || n > static_cast<uint64_t>(INT64_MAX / 16 / elements))
      return fail(error, *at, "dimension %u of tensor '%.*s' is %llu: zero, or the product overflows", d, shown, name,
                  static_cast<unsigned long long>(n));
    t->dims[d] = static_cast<int64_t>(n);
    elements *= t->dims[d];
    *at += 8;
  }
  t->type = load<uint32_t>(*at);
  const Block* block = find_block(t->type);
  if (block == nullptr) return fail(error, *at, "tensor '%.*s' has unknown type %u", shown, name, t->type);
  if (t->dims[0] % block->elements != 0)
    return fail(error, *at, "rows of tensor '%.*s' have %lld elements, no multiple of the %lld of a %s block", shown,
                name, static_cast<long long>(t->dims[0]), static_cast<long long>(block->elements), block->name);
  if (block->elements > 1) {
    const Value* v = find("general.quantization_version");
    int64_t version = 0;
    if (v == nullptr || v->is_array || !as_int(*v, 0, &version) || version != 2)
      return fail(error, *at, "tensor '%.*s' is quantised but general.quantization_version is not 2", shown, name);
  }
  t->bytes = elements / block->elements * block->bytes;  // elements <= 2^59, bytes <= 8 per element
  const auto offset = load<uint64_t>(*at + 4);
  if (offset > static_cast<uint64_t>(size_))
    return fail(error, *at + 4, "tensor '%.*s' starts at %llu, behind the end of the file", shown, name,
                static_cast<unsigned long long>(offset));
  t->offset = static_cast<int64_t>(offset);  // relative until place_tensors
  *at += 12;
  return true;
}

bool Gguf::place_tensors(int64_t at, Error* error) {
  data_start_ = padded(at, alignment_);
  if (tensors_.size() == 0) data_start_ = at < size_ && data_start_ <= size_ ? data_start_ : at;
  if (!need(at, data_start_ - at, "padding before the tensors", error)) return false;
  int64_t end = at;
  int64_t running = 0;
  for (TensorInfo& t : tensors_) {
    if (t.offset != running)
      return fail(error, data_start_ + running, "tensor '%.*s' says offset %lld, the tensors before it end at %lld",
                  printable(t.name), t.name.data, static_cast<long long>(t.offset), static_cast<long long>(running));
    t.offset += data_start_;
    if (t.offset > size_) return need(size_, t.offset - size_, "padding of a tensor", error);
    for (; end < t.offset; ++end)
      if (base_[end] != 0) return fail(error, end, "padding byte is %u, not 0", base_[end]);
    if (!need(t.offset, t.bytes, "tensor data", error)) return false;
    t.data = base_ + t.offset;
    end = t.offset + t.bytes;
    running = padded(running + t.bytes, alignment_);
  }
  if (end != size_ && padded(end, alignment_) != size_)
    return fail(error, end, "%lld bytes follow the last tensor", static_cast<long long>(size_ - end));
  for (; end < size_; ++end)
    if (base_[end] != 0) return fail(error, end, "padding byte is %u, not 0", base_[end]);
  return true;
}

bool Gguf::check_digests(Error* error) const {
  bool ours = false;
  for (const Value& v : values_) ours = ours || starts_with(v.key, str("gristmill."));
  if (!ours) return true;  // a foreign file carries no digests
  const Value* header = find("gristmill.digest.header");
  const Value* names = find("gristmill.digest.names");
  const Value* sums = find("gristmill.digest.sha256");
  if (header == nullptr || names == nullptr || sums == nullptr || !names->is_array || !sums->is_array ||
      names->type != ValueType::string || sums->type != ValueType::string || names->count != tensors_.size() ||
      sums->count != tensors_.size())
    return fail(error, kHeader, "the file has gristmill.* keys but no digest for each tensor: it is damaged");
  if (!check_header_digest(*header, error)) return false;
  int64_t name_at = names->offset, sum_at = sums->offset;
  for (const TensorInfo& t : tensors_) {
    const Str name = next_string(&name_at), sum = next_string(&sum_at);
    if (!equal(name, t.name))
      return fail(error, t.offset, "digests are not in tensor order at '%.*s'", printable(t.name), t.name.data);
    Sha256 sha;
    sha.update(t.data, t.bytes);
    char hex[65];
    sha.finish_hex(hex);
    if (!equal(sum, str(hex)))
      return fail(error, t.offset, "tensor '%.*s' does not match its sha256: the file is damaged", printable(t.name),
                  t.name.data);
  }
  return true;
}

// sha256 of everything before the tensor data, its own 64 digits read as '0'.
bool Gguf::check_header_digest(const Value& v, Error* error) const {
  Str given;
  if (!as_string(v, &given) || given.size != 64)
    return fail(error, v.offset, "gristmill.digest.header is no string of 64 digits");
  const int64_t at = v.offset + 8;
  char zeros[64];
  std::memset(zeros, '0', sizeof zeros);
  Sha256 sha;
  sha.update(base_, at);
  sha.update(zeros, 64);
  sha.update(base_ + at + 64, data_start_ - at - 64);
  char hex[65];
  sha.finish_hex(hex);
  if (equal(given, str(hex))) return true;
  return fail(error, kHeader, "metadata does not match gristmill.digest.header: the file is damaged");
}

const Value* Gguf::find(const char* key) const {
  const int64_t i = keys_.find(str(key));
  return i < 0 ? nullptr : &values_[i];
}

const TensorInfo* Gguf::find_tensor(Str name) const {
  const int64_t i = names_.find(name);
  return i < 0 ? nullptr : &tensors_[i];
}

void Gguf::digest(char hex[65]) const {
  Sha256 sha;
  sha.update(base_, size_);
  sha.finish_hex(hex);
}

bool Gguf::as_int(const Value& v, int64_t i, int64_t* out) const {
  const int64_t at = v.offset + i * element_bytes(v.type);
  switch (v.type) {
    case ValueType::u8:
    case ValueType::boolean: *out = load<uint8_t>(at); return true;
    case ValueType::i8: *out = load<int8_t>(at); return true;
    case ValueType::u16: *out = load<uint16_t>(at); return true;
    case ValueType::i16: *out = load<int16_t>(at); return true;
    case ValueType::u32: *out = load<uint32_t>(at); return true;
    case ValueType::i32: *out = load<int32_t>(at); return true;
    case ValueType::i64: *out = load<int64_t>(at); return true;
    case ValueType::u64: {
      const auto n = load<uint64_t>(at);
      *out = static_cast<int64_t>(n);
      return n <= static_cast<uint64_t>(INT64_MAX);
    }
    default: return false;
  }
}

bool Gguf::as_double(const Value& v, int64_t i, double* out) const {
  const int64_t at = v.offset + i * element_bytes(v.type);
  if (v.type == ValueType::f32) return *out = static_cast<double>(load<float>(at)), true;
  if (v.type == ValueType::f64) return *out = load<double>(at), true;
  int64_t n = 0;
  if (!as_int(v, i, &n)) return false;
  *out = static_cast<double>(n);
  return true;
}

bool Gguf::as_string(const Value& v, Str* out) const {
  if (v.type != ValueType::string || v.is_array) return false;
  int64_t at = v.offset;
  *out = next_string(&at);
  return true;
}

Str Gguf::next_string(int64_t* at) const {
  const auto n = static_cast<int64_t>(load<uint64_t>(*at));
  const Str s{reinterpret_cast<const char*>(base_ + *at + 8), n};
  *at += 8 + n;
  return s;
}

}  // namespace gristmill::runtime
