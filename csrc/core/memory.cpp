#include "core/memory.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdlib>

namespace gristmill {
namespace {

constexpr int64_t kHuge = int64_t{2} << 20, kAlone = int64_t{256} << 20;
constexpr int64_t kGrain = int64_t{64} << 10;  // a multiple of every page size
constexpr int kClasses = 4 * 48;
constexpr int64_t kMost = int64_t{1} << 47;  // the address space of a process; the last class with a list

struct FreeBlock {
  FreeBlock* next;
};

// Free memory; neighbours are one range.
struct Range {
  Range* next;
  int64_t bytes;
};

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
pthread_once_t hooked = PTHREAD_ONCE_INIT;
FreeBlock* free_lists[kClasses];
Range* ranges;  // by address
MemoryStats stats;

void take_lock() { pthread_mutex_lock(&lock); }
void give_lock() { pthread_mutex_unlock(&lock); }

// A fork waits until nobody is at the lists: the child would find them locked for ever by a thread it does not have.
void hook_fork() { pthread_atfork(take_lock, give_lock, give_lock); }

int64_t round_up(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }
char* start_of(Range* r) { return reinterpret_cast<char*>(r); }

// From kHuge to kAlone blocks are cut from ranges: what one size gave back, others may take. Larger ones are few, and
// live long: states of an optimizer would lie where the next step has its activations.
bool is_cut(int64_t bytes) { return bytes >= kHuge && bytes < kAlone; }

// Four classes per power of two: at most 25 % is given away.
int size_class(int64_t bytes, int64_t* rounded) {
  int64_t n = bytes < 256 ? 256 : bytes;
  int log = 63 - __builtin_clzll(static_cast<unsigned long long>(n));
  int64_t step = (int64_t{1} << log) / 4;
  int64_t quarters = (n - (int64_t{1} << log) + step - 1) / step;
  *rounded = is_cut(n) ? round_up(n, kGrain) : (int64_t{1} << log) + quarters * step;
  return 4 * log + static_cast<int>(quarters);
}

// Bytes of a block of class k.
int64_t class_bytes(int k) { return (int64_t{1} << k / 4) + k % 4 * ((int64_t{1} << k / 4) / 4); }

// Memory of a size that is rounded, or null; at `place`, or nowhere.
char* map_pages(char* place, int64_t bytes) {
  void* p = mmap(place, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  if (!place || p == place) return static_cast<char*>(p);
  munmap(p, static_cast<size_t>(bytes));
  return nullptr;
}

void advise_huge(char* p, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  madvise(p, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
}

// A mapping of its own: what malloc frees of this size may stay with the process.
char* map_huge(int64_t bytes) {
  char* whole = map_pages(nullptr, bytes + kHuge);
  if (!whole) return nullptr;
  int64_t before = (kHuge - static_cast<int64_t>(reinterpret_cast<uintptr_t>(whole) % kHuge)) % kHuge;
  char* p = whole + before;
  if (before) munmap(whole, static_cast<size_t>(before));
  if (before < kHuge) munmap(p + bytes, static_cast<size_t>(kHuge - before));
  advise_huge(p, bytes);
  return p;
}

void give_range(char* p, int64_t bytes) {
  Range *before = nullptr, *after = ranges, *r = reinterpret_cast<Range*>(p);
  while (after && start_of(after) < p) before = after, after = after->next;
  bool meets = after && p + bytes == start_of(after);
  *r = meets ? Range{after->next, bytes + after->bytes} : Range{after, bytes};
  if (!before)
    ranges = r;
  else if (start_of(before) + before->bytes == p)
    *before = {r->next, before->bytes + r->bytes};
  else
    before->next = r;
}

// From the upper end of the smallest range that is large enough.
void* take_range(int64_t bytes) {
  Range** best = nullptr;
  for (Range** at = &ranges; *at; at = &(*at)->next)
    if ((*at)->bytes >= bytes && (!best || (*at)->bytes < (*best)->bytes)) best = at;
  if (!best) return nullptr;
  Range* r = *best;
  r->bytes -= bytes;
  char* p = start_of(r) + r->bytes;
  if (r->bytes == 0) *best = r->next;
  return p;
}

// A range for a block of so many bytes: only what the lowest one lacks where the memory below it is free.
bool add_range(int64_t bytes) {
  char *low = ranges ? start_of(ranges) : nullptr, *p = nullptr;
  int64_t lacks = round_up(low && ranges->bytes < bytes ? bytes - ranges->bytes : bytes, kHuge);
  if (low && reinterpret_cast<uintptr_t>(low) % kHuge == 0) p = map_pages(low - lacks, lacks);
  if (p)
    advise_huge(p, lacks);
  else
    p = map_huge(lacks = round_up(bytes, kHuge));
  if (!p) return false;
  give_range(p, lacks);
  stats.cached += lacks;
  return true;
}

void* from_system(int64_t bytes) {
  if (bytes >= kHuge) return map_huge(bytes);
  void* p = nullptr;
  return posix_memalign(&p, 64, static_cast<size_t>(bytes)) == 0 ? p : nullptr;
}

void to_system(void* p, int64_t bytes) {
  if (bytes >= kHuge)
    munmap(p, static_cast<size_t>(bytes));
  else
    free(p);
}

void empty() {
  for (int k = 0; k < kClasses; ++k)
    while (FreeBlock* block = free_lists[k]) {
      free_lists[k] = block->next;
      to_system(block, class_bytes(k));
    }
  while (Range* r = ranges) {
    ranges = r->next;
    munmap(r, static_cast<size_t>(r->bytes));
  }
  stats.cached = 0;
}

// Of class k and a size that is rounded.
void* find(int k, int64_t bytes) {
  void* p = nullptr;
  if (is_cut(bytes)) {
    p = take_range(bytes);
    if (!p && add_range(bytes)) p = take_range(bytes);
    if (!p) return nullptr;
  } else {
    if (!free_lists[k]) return from_system(bytes);
    p = free_lists[k];
    free_lists[k] = free_lists[k]->next;
  }
  stats.cached -= bytes;
  return p;
}

}  // namespace

void* memory_acquire(int64_t bytes) {
  if (bytes < 0 || bytes > kMost) return nullptr;
  pthread_once(&hooked, hook_fork);
  int64_t rounded;
  int k = size_class(bytes, &rounded);
  take_lock();
  void* p = find(k, rounded);
  if (!p) {
    empty();
    p = find(k, rounded);
  }
  if (p) stats.in_use += rounded;
  if (stats.in_use > stats.peak) stats.peak = stats.in_use;
  give_lock();
  return p;
}

void memory_release(void* p, int64_t bytes) {
  if (!p) return;
  int64_t rounded;
  int k = size_class(bytes, &rounded);
  take_lock();
  if (is_cut(rounded)) {
    give_range(static_cast<char*>(p), rounded);
  } else {
    FreeBlock* block = static_cast<FreeBlock*>(p);
    *block = {free_lists[k]};
    free_lists[k] = block;
  }
  stats.in_use -= rounded;
  stats.cached += rounded;
  give_lock();
}

void memory_empty_cache() {
  take_lock();
  empty();
  give_lock();
}

MemoryStats memory_stats() {
  take_lock();
  MemoryStats copy = stats;
  give_lock();
  return copy;
}

namespace {
struct Arena {
  void* data;
  int64_t bytes;
};
thread_local Arena arena;
pthread_key_t arena_key;
pthread_once_t arena_once = PTHREAD_ONCE_INIT;

// A key of pthread frees a thread's scratch at its end; a C++ destructor would need the C++ runtime library.
void release_arena(void* a) {
  memory_release(static_cast<Arena*>(a)->data, static_cast<Arena*>(a)->bytes);
  *static_cast<Arena*>(a) = {nullptr, 0};
}
void make_arena_key() { pthread_key_create(&arena_key, release_arena); }
}  // namespace

void* arena_workspace(int64_t bytes) {
  constexpr int64_t kKept = int64_t{32} << 20;
  bool idle = arena.bytes > kKept && bytes < arena.bytes / 2;
  if (bytes <= arena.bytes && !idle) return arena.data;
  pthread_once(&arena_once, make_arena_key);
  pthread_setspecific(arena_key, &arena);
  memory_release(arena.data, arena.bytes);
  arena.data = memory_acquire(bytes);
  arena.bytes = arena.data ? bytes : 0;
  return arena.data;
}

}  // namespace gristmill
