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

void* from_system(int64_t bytes) {
  bool huge = bytes >= kHuge;
  void* p = nullptr;
  size_t alignment = huge ? static_cast<size_t>(kHuge) : 64;
  if (posix_memalign(&p, alignment, static_cast<size_t>(bytes)) != 0) return nullptr;
#ifdef MADV_HUGEPAGE
  if (huge) madvise(p, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
  return p;
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
  for (FreeBlock*& head : free_lists)
    while (head) {
      FreeBlock* next = head->next;
      free(head);
      head = next;
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
  memory_release(arena.data, arena.bytes);
  arena.data = memory_acquire(bytes);
  arena.bytes = arena.data ? bytes : 0;
  return arena.data;
}

}  // namespace gristmill
