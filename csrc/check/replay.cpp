#include "check/replay.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/parallel.h"

namespace gristmill::check {
namespace {

constexpr int64_t kMaxArgs = 1024;

struct Entry {
  const char* name;
  bool (*present)(const Kernels*);
  int64_t (*workspace)(const Kernels*, const void* args, int32_t threads);
  Status (*call)(const Kernels*, Context*, const void* args);
};

#define GM_CHECK_ENTRY(entry, FIELDS, Args, contains)                                              \
  {#entry, [](const Kernels* k) { return k->entry != nullptr; },                                   \
   [](const Kernels* k, const void* a, int32_t threads) {                                          \
     static_assert(sizeof(Args) <= kMaxArgs);                                                      \
     return k->entry##_workspace ? k->entry##_workspace(static_cast<const Args*>(a), threads) : 0; \
   },                                                                                              \
   [](const Kernels* k, Context* ctx, const void* a) { return k->entry(ctx, static_cast<const Args*>(a)); }},
const Entry kEntries[] = {GM_OPS(GM_CHECK_ENTRY)};

const Entry* find_entry(const std::string& name) {
  for (const Entry& e : kEntries)
    if (name == e.name) return &e;
  return nullptr;
}

// Memory of exactly the size asked for, 64-byte aligned.
class Block {
 public:
  explicit Block(int64_t bytes) {
    if (posix_memalign(&data_, 64, static_cast<size_t>(bytes > 0 ? bytes : 1)) != 0) std::abort();
  }
  Block(Block&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  ~Block() { std::free(data_); }
  unsigned char* bytes() const { return static_cast<unsigned char*>(data_); }

 private:
  void* data_ = nullptr;
};

std::vector<Block> copy_buffers(const Case& c) {
  std::vector<Block> blocks;
  for (const Buffer& b : c.buffers) {
    blocks.emplace_back(b.size());
    if (b.size()) std::memcpy(blocks.back().bytes(), b.bytes, static_cast<size_t>(b.size()));
  }
  return blocks;
}

std::string put_field(const Case& c, const Entry& entry, const std::vector<Block>& blocks, const Field& f,
                      unsigned char* args) {
  for (int i = 0; i < field_count(); ++i) {
    const FieldInfo info = field(i);
    if (std::strcmp(entry.name, info.entry) != 0 || f.name != info.name) continue;
    unsigned char* at = args + info.offset;
    const auto b = static_cast<size_t>(f.buffer);
    void* data = f.buffer < 0 ? nullptr : blocks[b].bytes() + f.offset * item_size(c.buffers[b].dtype);
    if (f.kind == Kind::view && !std::strcmp(info.type, "View")) {
      View v{};
      v.data = data, v.accumulate = f.accumulate;
      std::memcpy(v.strides, f.strides, sizeof v.strides);
      if (f.buffer >= 0) v.dtype = c.buffers[b].dtype;
      std::memcpy(at, &v, sizeof v);
    } else if (f.kind == Kind::pointer && std::strchr(info.type, '*')) {
      std::memcpy(at, &data, sizeof data);
    } else if (f.kind == Kind::real && !std::strcmp(info.type, "float")) {
      const auto value = static_cast<float>(f.real);
      std::memcpy(at, &value, sizeof value);
    } else if (f.kind == Kind::integer && !std::strcmp(info.type, "int64_t")) {
      std::memcpy(at, &f.integer, 8);
    } else if (f.kind == Kind::integer && (!std::strcmp(info.type, "int32_t") || !std::strcmp(info.type, "DType"))) {
      const auto value = static_cast<int32_t>(f.integer);
      std::memcpy(at, &value, sizeof value);
    } else {
      return "field " + f.name + " is a " + info.type + ", the file gives another kind";
    }
    return "";
  }
  return "there is no field " + f.name;
}

double element(const Buffer& b, const unsigned char* data, int64_t i) {
  switch (b.dtype) {
    case DType::f32: {
      float v;
      return std::memcpy(&v, data + 4 * i, 4), v;
    }
    case DType::bf16: {
      uint16_t v;
      return std::memcpy(&v, data + 2 * i, 2), bf16_to_f32(v);
    }
    case DType::i32: {
      int32_t v;
      return std::memcpy(&v, data + 4 * i, 4), v;
    }
    case DType::i64: {
      int64_t v;
      return std::memcpy(&v, data + 8 * i, 8), static_cast<double>(v);
    }
    case DType::u8: return data[i];
  }
  return 0;
}

// Error as a multiple of the bound; infinity where it must be equal and is not.
double excess(double got, double want, double bound) {
  if (std::isnan(want)) return std::isnan(got) ? 0 : INFINITY;
  if (got == want) return 0;
  const double error = std::fabs(got - want);
  return bound > 0 && error < INFINITY ? error / bound : INFINITY;
}

void compare(const Case& c, const Want& w, const unsigned char* got, Outcome* out) {
  const Buffer& b = c.buffers[static_cast<size_t>(w.buffer)];
  const int64_t item = item_size(b.dtype);
  for (int64_t i = 0; i < b.elements; ++i) {
    const auto k = static_cast<size_t>(i);
    const bool kept = std::isnan(w.bounds[k]);
    const double value = element(b, got, i);
    const bool same = std::memcmp(got + item * i, b.bytes + item * i, static_cast<size_t>(item)) == 0;
    const double times = kept ? (same ? 0 : INFINITY) : excess(value, w.values[k], w.bounds[k]);
    if (times > out->worst) out->worst = times;
    if (times <= 1 || !out->problem.empty()) continue;
    char text[200];
    if (kept)
      std::snprintf(text, sizeof text, "buffer %d, element %lld must stay %.9g and became %.9g", w.buffer,
                    static_cast<long long>(i), element(b, b.bytes, i), value);
    else
      std::snprintf(text, sizeof text, "buffer %d, element %lld: got %.9g, want %.9g, %.3g x the bound", w.buffer,
                    static_cast<long long>(i), value, w.values[k], times);
    out->problem = text;
  }
}

// A NaN's sign and payload differ between processors and mean nothing.
void keep_results(const Buffer& b, const unsigned char* got, Bytes* results) {
  const size_t start = results->size();
  results->insert(results->end(), got, got + b.size());
  if (b.dtype != DType::f32) return;
  for (int64_t i = 0; i < b.elements; ++i) {
    const float nan = NAN;
    if (std::isnan(element(b, got, i))) std::memcpy(results->data() + start + 4 * i, &nan, 4);
  }
}

void judge(const Case& c, const std::vector<Block>& blocks, Outcome* out) {
  std::vector<bool> wanted(c.buffers.size());
  for (const Want& w : c.wants) {
    const auto b = static_cast<size_t>(w.buffer);
    wanted[b] = true;
    compare(c, w, blocks[b].bytes(), out);
    keep_results(c.buffers[b], blocks[b].bytes(), &out->results);
  }
  for (size_t b = 0; b < c.buffers.size(); ++b) {
    const auto size = static_cast<size_t>(c.buffers[b].size());
    if (wanted[b] || !size || !std::memcmp(blocks[b].bytes(), c.buffers[b].bytes, size)) continue;
    out->worst = INFINITY;
    if (out->problem.empty()) out->problem = "buffer " + std::to_string(b) + " is an input and was changed";
  }
}

// b as matmul_pack lays it out, in exactly the bytes it asks for.
Status pack_b(const Kernels* table, Context* ctx, MatmulArgs* m, std::vector<Block>* packs) {
  MatmulPackArgs p{{}, m->b, m->N, m->K, m->compute};
  for (int i = 0; i < 3; ++i) p.b.strides[i] = m->b.strides[i + 1];
  const int64_t bytes = table->matmul_pack_workspace(&p, ctx->threads);
  packs->emplace_back(bytes);
  std::memset(packs->back().bytes(), 0xff, static_cast<size_t>(bytes));  // NaN: every byte that is read was written
  p.out.data = packs->back().bytes(), p.out.dtype = DType::u8, p.out.strides[0] = 1;
  m->b.packed = p.out.data;
  return table->matmul_pack(ctx, &p);
}

Outcome call(const Case& c, const Entry& entry, const Kernels* table, int32_t threads, bool packed) {
  Outcome out;
  const std::vector<Block> blocks = copy_buffers(c);
  alignas(64) unsigned char args[kMaxArgs] = {};
  for (const Field& f : c.fields) {
    out.problem = put_field(c, entry, blocks, f, args);
    if (!out.problem.empty()) return out;
  }
  Context ctx = {threads, pool_parallel_for, nullptr, 0, nullptr};
  std::vector<Block> packs;
  Status status = packed ? pack_b(table, &ctx, reinterpret_cast<MatmulArgs*>(args), &packs) : Status::ok;
  ctx.workspace_bytes = entry.workspace(table, args, threads);
  const Block workspace(ctx.workspace_bytes);
  if (ctx.workspace_bytes > 0) {
    ctx.workspace = workspace.bytes();
    std::memset(ctx.workspace, 0xff, static_cast<size_t>(ctx.workspace_bytes));  // NaN: scratch is not zeroed
  }
  if (status == Status::ok) status = entry.call(table, &ctx, args);
  if (status != Status::ok)
    out.problem = status_name(status);
  else
    judge(c, blocks, &out);
  return out;
}

}  // namespace

Outcome replay(const Case& c, const Kernels* table, int32_t threads) {
  // A pack is opaque: its cases are products with the fields of matmul, and must have the unpacked one's bytes.
  const bool packed = c.entry == "matmul_pack";
  const Entry* entry = find_entry(packed ? "matmul" : c.entry);
  if (!entry || !entry->present(table) || (packed && !table->matmul_pack)) {
    Outcome out;
    out.problem = entry ? "the table has no such kernel" : "kernels.h has no such entry";
    return out;
  }
  Outcome out = call(c, *entry, table, threads, packed);
  if (packed && out.problem.empty() && out.results != call(c, *entry, table, threads, false).results)
    out.problem = "other bits than the product of the same b unpacked";
  return out;
}

}  // namespace gristmill::check
