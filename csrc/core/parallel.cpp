#include "core/parallel.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#endif

namespace gristmill {
namespace {

constexpr int kSpins = 2000;  // some 20 microseconds: the gap between two kernels of a step

struct Job {
  void (*fn)(void*, int64_t);
  void* arg;
};

Job job;                        // read only by those who have joined
std::atomic<int64_t> count{0};  // its chunks; a worker that has not joined may look at it too
std::atomic<int64_t> next_index{0};
// generation << 16 | open << 15 | workers inside. A worker may join only while the job is open, so the caller never
// waits for one that is still asleep.
std::atomic<uint64_t> state{0};
std::atomic<uint32_t> wake{0};
std::atomic<int> sleepers{0};
std::atomic_flag busy = ATOMIC_FLAG_INIT;
std::atomic<bool> stopping{false};
pthread_t workers[kMaxThreads];
int started = 0;
int caller_cpu = -1;  // where the last job began
int attempted = 0;    // more than `started` where the system refused: not asked again at every call
std::atomic<int> wanted{0};
thread_local bool inside_chunk = false;

constexpr uint64_t kOpen = 1u << 15, kInside = kOpen - 1;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void futex(std::atomic<uint32_t>* word, int op, uint32_t value) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), op | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr, 0);
}

// A scheduler may wake workers on the core of their caller and leave them there though others idle, which halves the
// speed: where the caller has moved, its core is taken from what workers may run on.
void keep_off(int cpu) {
#if defined(__linux__)
  cpu_set_t others;
  if (cpu < 0 || sched_getaffinity(0, sizeof others, &others) != 0 || CPU_COUNT(&others) < 2) return;
  CPU_CLR(static_cast<size_t>(cpu), &others);
  for (int i = 0; i < started; ++i) pthread_setaffinity_np(workers[i], sizeof others, &others);
#else
  (void)cpu;
#endif
}

int current_cpu() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

void drain() {
  inside_chunk = true;
  for (int64_t i; (i = next_index.fetch_add(1, std::memory_order_relaxed)) < count.load(std::memory_order_relaxed);)
    job.fn(job.arg, i);
  inside_chunk = false;
}

bool join() {
  uint64_t s = state.load(std::memory_order_acquire);
  while (s & kOpen)
    if (state.compare_exchange_weak(s, s + 1, std::memory_order_acq_rel)) return true;
  return false;
}

void* worker(void*) {
  uint32_t seen = 0;
  while (!stopping.load(std::memory_order_acquire)) {
    if (join()) {
      drain();
      state.fetch_sub(1, std::memory_order_acq_rel);
    }
    seen = wake.load(std::memory_order_acquire);
    if (state.load(std::memory_order_acquire) & kOpen &&
        next_index.load(std::memory_order_relaxed) < count.load(std::memory_order_relaxed))
      continue;
    for (int spin = 0; spin < kSpins && wake.load(std::memory_order_acquire) == seen; ++spin) relax();
    if (wake.load(std::memory_order_acquire) != seen) continue;
    sleepers.fetch_add(1);
    if (wake.load() == seen && !stopping.load()) futex(&wake, FUTEX_WAIT, seen);
    sleepers.fetch_sub(1);
  }
  return nullptr;
}

void stop_workers() {
  stopping.store(true);
  wake.fetch_add(1);
  futex(&wake, FUTEX_WAKE, kMaxThreads);
  for (int i = 0; i < started; ++i) pthread_join(workers[i], nullptr);
  started = 0;
  stopping.store(false);
}

// The child of a fork has no workers; the next call starts its own.
void after_fork() {
  started = attempted = 0;
  caller_cpu = -1;
  sleepers.store(0);
  state.store(0);
  busy.clear();
  inside_chunk = false;
}

pthread_once_t hooked = PTHREAD_ONCE_INIT;
void hook_fork() { pthread_atfork(nullptr, nullptr, after_fork); }

int default_threads() {
  const char* asked = getenv("GRISTMILL_THREADS");
  if (int32_t n = asked ? pool_threads_from(asked) : 0) return n;
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set) < kMaxThreads ? CPU_COUNT(&set) : kMaxThreads;
#endif
  return 1;
}

}  // namespace

int32_t pool_threads_from(const char* text) {
  char* end = nullptr;
  const long n = strtol(text, &end, 10);
  return end != text && *end == 0 && n >= 1 && n <= kMaxThreads ? static_cast<int32_t>(n) : 0;
}

int32_t pool_threads() {
  int n = wanted.load();
  if (n == 0) wanted.store(n = default_threads());
  return n;
}

void pool_set_threads(int32_t n) { wanted.store(n < 1 ? 1 : n > kMaxThreads ? kMaxThreads : n); }

void pool_parallel_for(Context* ctx, int64_t n, void (*fn)(void*, int64_t), void* arg) {
  if (n <= 1 || ctx->threads <= 1 || inside_chunk || busy.test_and_set(std::memory_order_acquire)) {
    for (int64_t i = 0; i < n; ++i) fn(arg, i);
    return;
  }
  pthread_once(&hooked, hook_fork);
  int need = ctx->threads - 1;
  if (need != attempted) {
    if (started) stop_workers();
    attempted = need;
    while (started < need && pthread_create(&workers[started], nullptr, worker, nullptr) == 0) ++started;
    caller_cpu = -1;
  }
  if (int cpu = current_cpu(); cpu != caller_cpu) keep_off(caller_cpu = cpu);
  job = {fn, arg};
  count.store(n, std::memory_order_relaxed);
  next_index.store(0, std::memory_order_relaxed);
  state.fetch_add((uint64_t{1} << 16) | kOpen, std::memory_order_acq_rel);
  wake.fetch_add(1);
  if (sleepers.load() > 0) futex(&wake, FUTEX_WAKE, kMaxThreads);
  drain();
  state.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spin = 0; state.load(std::memory_order_acquire) & kInside; ++spin) {
    relax();
    if (spin > 20000) sched_yield();
  }
  busy.clear(std::memory_order_release);
}

}  // namespace gristmill
