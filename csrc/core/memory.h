// Memory of tensors: what is released is kept, in free lists by size and, from 2 MiB on, as ranges that are cut anew,
// so that after the first training step nothing is mapped and no page faults. Large blocks lie in 2 MiB huge pages.
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

// Scratch of one op call, kept per thread and grown on demand; much of it goes back once an op wants little: the head's
// logits lie where a block's gradients do. Null when the system has no more.
void* arena_workspace(int64_t bytes);

}  // namespace gristmill
