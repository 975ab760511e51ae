// The thread pool behind Context::parallel_for. Chunks are handed out dynamically; which thread runs a chunk never
// shows in the result. Calls from inside a chunk, or while another thread uses the pool, run inline.
#pragma once
#include <cstdint>

#include "kernels.h"

namespace gristmill {

constexpr int32_t kMaxThreads = 256;

int32_t pool_threads();
int32_t pool_threads_from(const char* text);  // a number from 1 to kMaxThreads, or 0 where the text is none
void pool_set_threads(int32_t n);             // n >= 1; takes effect at the next call
void pool_parallel_for(Context*, int64_t n, void (*fn)(void* arg, int64_t i), void* arg);

}  // namespace gristmill
