#include "backend.h"

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/memory.h"
#include "core/parallel.h"

namespace gristmill {

#define GM_TABLE(isa)          \
  namespace isa {              \
  extern const Kernels kTable; \
  }
GM_TABLE(scalar)
#if defined(__x86_64__)
GM_TABLE(avx2)
GM_TABLE(avx512)
GM_TABLE(avx512bf16)
#elif defined(__aarch64__)
GM_TABLE(neon)
#endif

namespace {

// Plain functions and constant tables: static data that needs no guard needs no C++ runtime library.
bool always() { return true; }
#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
bool has_avx512bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
}
#endif

struct Candidate {
  const Kernels* table;
  bool (*usable)();
  const char* reason;
};

const Candidate list[] = {
#if defined(__x86_64__)
    {&avx512bf16::kTable, has_avx512bf16, "the processor has avx512f/bw/vl/dq, avx512_bf16 and avx512_vnni"},
    {&avx512::kTable, has_avx512, "the processor has avx512f/bw/vl/dq but not avx512_bf16 and avx512_vnni"},
    {&avx2::kTable, has_avx2, "the processor has avx2 and fma"},
    {&scalar::kTable, always, "the processor has neither avx2 nor avx512"},
#elif defined(__aarch64__)
    {&neon::kTable, always, "every aarch64 processor has NEON"},
    {&scalar::kTable, always, "asked for"},
#else
    {&scalar::kTable, always, "no vector table for this architecture"},
#endif
};

const Candidate* usable(int wanted, int* total) {
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
  int k = 0;
  const Candidate* found = nullptr;
  for (const Candidate& c : list)
    if (c.usable() && k++ == wanted) found = &c;
  if (total) *total = k;
  return found;
}

Kernels active;
const Kernels* base = nullptr;
const char* reason = "";
char problem[256] = "";

void refuse_isa(const char* asked) {
  int used =
      snprintf(problem, sizeof problem, "GRISTMILL_ISA is '%.40s', which is no table of this machine; usable: ", asked);
  for (int i = 0, n = table_count(); i < n; ++i)
    used += snprintf(problem + used, sizeof problem - static_cast<size_t>(used), "%s%s", i ? ", " : "", table_name(i));
  snprintf(problem + used, sizeof problem - static_cast<size_t>(used), "; name one, or unset it for the first");
}

void choose() {
  if (base) return;
  const Candidate* best = usable(0, nullptr);
  base = best->table;
  reason = best->reason;
  active = *base;
  const char* isa = getenv("GRISTMILL_ISA");
  if (isa && *isa) {
    if (table_select(isa))
      reason = "GRISTMILL_ISA asks for it";
    else
      refuse_isa(isa);
  }
  const char* threads = getenv("GRISTMILL_THREADS");
  if (threads && *threads && pool_threads_from(threads) == 0)
    snprintf(
        problem, sizeof problem,
        "GRISTMILL_THREADS is '%.40s', which is no number from 1 to %d; give one, or unset it for a thread per core",
        threads, kMaxThreads);
}

struct Entry {
  const char *name, *contains;
  size_t offset, workspace;
};

#define GM_ROW(entry, FIELDS, Args, contains) \
  {#entry, contains, offsetof(Kernels, entry), offsetof(Kernels, entry##_workspace)},
const Entry entries[] = {GM_OPS(GM_ROW)};

#define GM_ONE(type, name, meaning) \
  {nullptr, #name, #type, meaning, static_cast<int64_t>(offsetof(GM_CURRENT, name)), sizeof(type)},
struct Fields {
  const char* entry;
  const FieldInfo* list;
  int count;
};

#define GM_LIST(entry, FIELDS, Args, contains)      \
  namespace fields_##entry {                        \
    using GM_CURRENT = Args;                        \
    const FieldInfo list[] = {GM_##FIELDS(GM_ONE)}; \
  }
GM_OPS(GM_LIST)
GM_LIST(View, VIEW, View, "")
GM_LIST(Context, CONTEXT, Context, "")
#define GM_INDEX(entry, FIELDS, Args, contains) \
  {#entry, fields_##entry::list, static_cast<int>(sizeof fields_##entry::list / sizeof(FieldInfo))},
const Fields all_fields[] = {GM_OPS(GM_INDEX) GM_INDEX(View, VIEW, View, "") GM_INDEX(Context, CONTEXT, Context, "")};

void** slot(Kernels* k, size_t offset) { return reinterpret_cast<void**>(reinterpret_cast<char*>(k) + offset); }

}  // namespace

const Kernels* kernels() {
  choose();
  return &active;
}
const char* table_reason() {
  choose();
  return reason;
}
const char* environment_error() {
  choose();
  return *problem ? problem : nullptr;
}
int table_count() {
  int n;
  usable(0, &n);
  return n;
}
const char* table_name(int i) { return usable(i, nullptr)->table->name; }

bool table_select(const char* name) {
  choose();
  for (int i = 0, n = table_count(); i < n; ++i) {
    const Candidate* c = usable(i, nullptr);
    if (strcmp(c->table->name, name) != 0) continue;
    base = c->table;
    active = *base;
    reason = "selected by the program";
    return true;
  }
  return false;
}

bool table_swap(const char* entry, void* fn, void* workspace) {
  choose();
  for (const Entry& e : entries) {
    if (strcmp(e.name, entry) != 0) continue;
    Kernels* own = const_cast<Kernels*>(base);
    *slot(&active, e.offset) = fn ? fn : *slot(own, e.offset);
    *slot(&active, e.workspace) = fn ? workspace : *slot(own, e.workspace);
    return true;
  }
  return false;
}

bool make_context(Context* ctx, int64_t bytes) {
  void* workspace = bytes > 0 ? arena_workspace(bytes) : nullptr;
  *ctx = {pool_threads(), pool_parallel_for, workspace, bytes, nullptr};
  return bytes <= 0 || workspace;
}

int field_count() {
  int n = 0;
  for (const Fields& f : all_fields) n += f.count;
  return n;
}

FieldInfo field(int i) {
  for (const Fields& f : all_fields) {
    if (i < f.count) {
      FieldInfo info = f.list[i];
      info.entry = f.entry;
      return info;
    }
    i -= f.count;
  }
  return {};
}

int entry_count() { return static_cast<int>(sizeof entries / sizeof *entries); }
const char* entry_name(int i) { return entries[i].name; }
const char* entry_contains(int i) { return entries[i].contains; }
bool entry_replaced(int i) {
  choose();
  return *slot(&active, entries[i].offset) != *slot(const_cast<Kernels*>(base), entries[i].offset);
}
bool entry_present(int i) {
  choose();
  return *slot(&active, entries[i].offset) != nullptr;
}

bool fused(const char* entry) {
  int fusion = 0;
  while (fusion < entry_count() && strcmp(entries[fusion].name, entry) != 0) ++fusion;
  if (fusion == entry_count() || !entry_present(fusion)) return false;
  for (const char* part = entries[fusion].contains; *part != 0;) {  // names with one space between
    const size_t size = strcspn(part, " ");
    for (int i = 0; i < entry_count(); ++i)
      if (strncmp(entries[i].name, part, size) == 0 && entries[i].name[size] == 0 && entry_replaced(i)) return false;
    part += size + (part[size] == ' ' ? 1 : 0);
  }
  return true;
}

}  // namespace gristmill
