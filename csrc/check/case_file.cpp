#include "check/case_file.h"

#include <cstring>

namespace gristmill::check {
namespace {

// Reads on after a damage give zeros; `bad` says where the first one was.
class Reader {
 public:
  explicit Reader(const std::vector<unsigned char>& file) : file_(file) {}

  const unsigned char* take(uint64_t n) {
    if (bad_ >= 0 || n > file_.size() - at_) return fail(), nullptr;
    at_ += n;
    return file_.data() + at_ - n;
  }
  template <class T>
  T number() {
    T value{};
    if (const unsigned char* p = take(sizeof value)) std::memcpy(&value, p, sizeof value);
    return value;
  }
  std::string text() {
    const auto n = number<uint32_t>();
    const unsigned char* p = take(n);
    return p ? std::string(reinterpret_cast<const char*>(p), n) : std::string();
  }
  // A count of items of at least `least` bytes each, so that a damaged one cannot ask for all memory.
  uint32_t count(uint64_t least) {
    const auto n = number<uint32_t>();
    if (n > (file_.size() - at_) / least) return fail(), 0;
    return n;
  }
  void fail() {
    if (bad_ < 0) bad_ = static_cast<int64_t>(at_);
  }
  int64_t bad() const { return bad_; }
  bool at_end() const { return at_ == file_.size(); }

 private:
  const std::vector<unsigned char>& file_;
  size_t at_ = 0;
  int64_t bad_ = -1;
};

Buffer read_buffer(Reader* r) {
  Buffer b{};
  const auto dtype = r->number<uint8_t>();
  b.dtype = static_cast<DType>(dtype);
  b.elements = r->number<int64_t>();
  if (dtype > 4 || b.elements < 0 || b.elements > (int64_t{1} << 40)) r->fail();
  b.bytes = r->take(r->bad() < 0 ? static_cast<uint64_t>(b.size()) : 0);
  return b;
}

Field read_field(Reader* r, int64_t buffers) {
  Field f{};
  f.name = r->text();
  f.kind = static_cast<Kind>(r->number<uint8_t>());
  f.buffer = -1;
  if (f.kind == Kind::integer) {
    f.integer = r->number<int64_t>();
  } else if (f.kind == Kind::real) {
    f.real = r->number<double>();
  } else if (f.kind == Kind::view || f.kind == Kind::pointer) {
    f.buffer = r->number<int32_t>();
    f.offset = r->number<int64_t>();
    if (f.kind == Kind::view) {
      for (int64_t& stride : f.strides) stride = r->number<int64_t>();
      f.accumulate = r->number<int32_t>();
    }
    if (f.buffer < -1 || f.buffer >= buffers) r->fail();
  } else {
    r->fail();
  }
  return f;
}

Want read_want(Reader* r, const std::vector<Buffer>& buffers) {
  Want w{};
  w.buffer = r->number<int32_t>();
  if (w.buffer < 0 || w.buffer >= static_cast<int64_t>(buffers.size())) r->fail();
  if (r->bad() >= 0) return w;
  const auto n = static_cast<size_t>(buffers[static_cast<size_t>(w.buffer)].elements);
  for (std::vector<double>* list : {&w.values, &w.bounds})
    if (const unsigned char* p = r->take(n * sizeof(double))) {
      list->resize(n);
      if (n) std::memcpy(list->data(), p, n * sizeof(double));
    }
  return w;
}

Case read_case(Reader* r) {
  Case c{};
  c.entry = r->text();
  c.label = r->text();
  c.same_bits = r->number<uint8_t>() != 0;
  for (uint32_t i = 0, n = r->count(9); i < n; ++i) c.buffers.push_back(read_buffer(r));
  for (uint32_t i = 0, n = r->count(13); i < n; ++i)
    c.fields.push_back(read_field(r, static_cast<int64_t>(c.buffers.size())));
  for (uint32_t i = 0, n = r->count(4); i < n; ++i) c.wants.push_back(read_want(r, c.buffers));
  return c;
}

}  // namespace

std::string read_cases(const std::vector<unsigned char>& file, uint64_t abi, std::vector<Case>* cases) {
  Reader r(file);
  const unsigned char* magic = r.take(8);
  if (!magic || std::memcmp(magic, "GMCASES1", 8) != 0) return "not a file of cases (GMCASES1)";
  if (r.number<uint64_t>() != abi) return "written for other argument structs (kernels.h); write it again";
  for (uint32_t i = 0, n = r.count(21); i < n && r.bad() < 0; ++i) cases->push_back(read_case(&r));
  if (r.bad() >= 0) return "damaged at byte " + std::to_string(r.bad());
  if (!r.at_end()) return "has bytes after the last case";
  return cases->empty() ? "holds no case" : "";
}

}  // namespace gristmill::check
