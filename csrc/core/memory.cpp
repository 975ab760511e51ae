#include "core/memory.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdlib>

namespace gristmill {
namespace {

constexpr int64_t kHuge = int64_t{2} << 20;
constexpr int kClasses = 4 * 48;

struct FreeBlock {
  FreeBlock* next;
};

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
FreeBlock* free_lists[kClasses];
MemoryStats stats;

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
  int64_t rounded;
  int k = size_class(bytes, &rounded);
  pthread_mutex_lock(&lock);
  void* p = free_lists[k];
  if (p) {
    free_lists[k] = free_lists[k]->next;
    stats.cached -= rounded;
  }
  pthread_mutex_unlock(&lock);
  if (!p) p = from_system(rounded);
  if (!p) {
    memory_empty_cache();
    p = from_system(rounded);
  }
  if (!p) return nullptr;
  pthread_mutex_lock(&lock);
  stats.in_use += rounded;
  if (stats.in_use > stats.peak) stats.peak = stats.in_use;
  pthread_mutex_unlock(&lock);
  return p;
}

void memory_release(void* p, int64_t bytes) {
  if (!p) return;
  int64_t rounded;
  int k = size_class(bytes, &rounded);
  pthread_mutex_lock(&lock);
  FreeBlock* block = static_cast<FreeBlock*>(p);
  block->next = free_lists[k];
  free_lists[k] = block;
  stats.in_use -= rounded;
  stats.cached += rounded;
  pthread_mutex_unlock(&lock);
}

void memory_empty_cache() {
  pthread_mutex_lock(&lock);
  for (FreeBlock*& head : free_lists)
    while (head) {
      FreeBlock* next = head->next;
      free(head);
      head = next;
    }
  stats.cached = 0;
  pthread_mutex_unlock(&lock);
}

MemoryStats memory_stats() {
  pthread_mutex_lock(&lock);
  MemoryStats copy = stats;
  pthread_mutex_unlock(&lock);
  return copy;
}

void memory_reset_peak() {
  pthread_mutex_lock(&lock);
  stats.peak = stats.in_use;
  pthread_mutex_unlock(&lock);
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
