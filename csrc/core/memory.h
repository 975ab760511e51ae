// Memory of tensors: size classes kept in free lists, so that after the first training step nothing is mapped and no
// page faults. Large blocks are aligned to and advised as 2 MiB huge pages.
#pragma once
#include <cstdint>

namespace gristmill {

struct MemoryStats {
  int64_t in_use, cached, peak;
};

void* memory_acquire(int64_t bytes);          // 64-byte aligned, uninitialised; null when the system has no more
void memory_release(void* p, int64_t bytes);  // same `bytes` as acquired
void memory_empty_cache();
MemoryStats memory_stats();

// Scratch of one op call, kept per thread and grown on demand. Null when the system has no more.
void* arena_workspace(int64_t bytes);

}  // namespace gristmill
