#include "core/memory.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdlib>

namespace gristmill {
namespace {

constexpr int64_t kHuge = int64_t{2} << 20;
constexpr int kClasses = 4 * 48;
constexpr int64_t kMost = int64_t{1} << 47;  // the address space of a process; the last class with a list

struct FreeBlock {
  FreeBlock* next;
};

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
pthread_once_t hooked = PTHREAD_ONCE_INIT;
FreeBlock* free_lists[kClasses];
MemoryStats stats;

void take_lock() { pthread_mutex_lock(&lock); }
void give_lock() { pthread_mutex_unlock(&lock); }

// A fork waits until nobody is at the lists: the child would find them locked for ever by a thread it does not have.
void hook_fork() { pthread_atfork(take_lock, give_lock, give_lock); }

// Four classes per power of two: at most 25 % is given away.
int size_class(int64_t bytes, int64_t* rounded) {
  int64_t n = bytes < 256 ? 256 : bytes;
  int log = 63 - __builtin_clzll(static_cast<unsigned long long>(n));
  int64_t step = (int64_t{1} << log) / 4;
  int64_t quarters = (n - (int64_t{1} << log) + step - 1) / step;
  *rounded = (int64_t{1} << log) + quarters * step;
  return 4 * log + static_cast<int>(quarters);
}

// Bytes of a block of class k.
int64_t class_bytes(int k) { return (int64_t{1} << k / 4) + k % 4 * ((int64_t{1} << k / 4) / 4); }

// A mapping of its own: what malloc frees of this size may stay with the process.
void* map_huge(int64_t bytes) {
  void* whole =
      mmap(nullptr, static_cast<size_t>(bytes + kHuge), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (whole == MAP_FAILED) return nullptr;
  char* p = static_cast<char*>(whole);
  int64_t before = (kHuge - static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % kHuge)) % kHuge;
  if (before) munmap(p, static_cast<size_t>(before));
  if (before < kHuge) munmap(p + before + bytes, static_cast<size_t>(kHuge - before));
#ifdef MADV_HUGEPAGE
  madvise(p + before, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
  return p + before;
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

}  // namespace

void* memory_acquire(int64_t bytes) {
  if (bytes < 0 || bytes > kMost) return nullptr;
  pthread_once(&hooked, hook_fork);
  int64_t rounded;
  int k = size_class(bytes, &rounded);
  take_lock();
  void* p = free_lists[k];
  if (p) {
    free_lists[k] = free_lists[k]->next;
    stats.cached -= rounded;
  }
  give_lock();
  if (!p) p = from_system(rounded);
  if (!p) {
    memory_empty_cache();
    p = from_system(rounded);
  }
  if (!p) return nullptr;
  take_lock();
  stats.in_use += rounded;
  if (stats.in_use > stats.peak) stats.peak = stats.in_use;
  give_lock();
  return p;
}

void memory_release(void* p, int64_t bytes) {
  if (!p) return;
  int64_t rounded;
  int k = size_class(bytes, &rounded);
  take_lock();
  FreeBlock* block = static_cast<FreeBlock*>(p);
  block->next = free_lists[k];
  free_lists[k] = block;
  stats.in_use -= rounded;
  stats.cached += rounded;
  give_lock();
}

void memory_empty_cache() {
  take_lock();
  for (int k = 0; k < kClasses; ++k)
    while (FreeBlock* block = free_lists[k]) {
      free_lists[k] = block->next;
      to_system(block, class_bytes(k));
    }
  stats.cached = 0;
  give_lock();
}

MemoryStats memory_stats() {
  take_lock();
  MemoryStats copy = stats;
  give_lock();
  return copy;
}

namespace {
// Back to the system: scratch that became too small has a size nobody asks for again.
void discard(void* p, int64_t bytes) {
  if (!p) return;
  int64_t rounded;
  size_class(bytes, &rounded);
  to_system(p, rounded);
  take_lock();
  stats.in_use -= rounded;
  give_lock();
}

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
  if (bytes <= arena.bytes) return arena.data;
  pthread_once(&arena_once, make_arena_key);
  pthread_setspecific(arena_key, &arena);
  discard(arena.data, arena.bytes);
  arena.data = memory_acquire(bytes);
  arena.bytes = arena.data ? bytes : 0;
  return arena.data;
}

}  // namespace gristmill
