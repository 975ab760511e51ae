// What this machine can do at best, measured in the same run as a kernel: fused multiply-adds from registers, and
// streams through memory. Compiled by bench/measure.py for this processor, with -ffp-contract=fast.
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

#if defined(__AVX512F__)
typedef float Vector __attribute__((vector_size(64)));
constexpr int kAccumulators = 24;
#else
typedef float Vector __attribute__((vector_size(32)));
constexpr int kAccumulators = 12;
#endif
constexpr int kLanes = sizeof(Vector) / 4;

// Thread t of several stays on the t-th core it may use: a new one may wait on its maker's core for a tick or longer.
void keep_apart(int t, int threads) {
  cpu_set_t allowed, own;
  CPU_ZERO(&own);
  if (threads == 1 || sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) < threads) return;
  for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &allowed) && seen++ == t) CPU_SET(cpu, &own);
  sched_setaffinity(0, sizeof own, &own);
}

// Runs body(thread) on all threads at once; seconds from the common start to the last end.
template <class Body>
double together(int threads, Body body) {
  std::atomic<int> ready{0};
  std::vector<Clock::time_point> from(threads), to(threads);
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      keep_apart(t, threads);
      for (++ready; ready < threads;) {}
      from[t] = Clock::now();
      body(t);
      to[t] = Clock::now();
    });
  for (auto& t : pool) t.join();
  Clock::time_point first = from[0], last = to[0];
  for (int t = 1; t < threads; ++t) {
    if (from[t] < first) first = from[t];
    if (to[t] > last) last = to[t];
  }
  return std::chrono::duration<double>(last - first).count();
}

volatile float sink;

void fma_loop(int64_t n) {
  Vector acc[kAccumulators], a, b;  // all different, or the compiler keeps one of them
  for (int i = 0; i < kLanes; ++i) a[i] = 0.999f, b[i] = 0.001f;
  for (int i = 0; i < kAccumulators; ++i) acc[i] = a + static_cast<float>(i);
  for (int64_t k = 0; k < n; ++k) {
#pragma GCC unroll 24
    for (int i = 0; i < kAccumulators; ++i) acc[i] = acc[i] * a + b;
    asm volatile("" : "+v"(a), "+v"(b));
  }
  float sum = 0;
  for (auto& v : acc) sum += v[0];
  sink = sum;
}

// Streams of floats: the sum of R arrays goes to W arrays (the first W of them when in place).
template <int R, int W, bool in_place>
void stream_loop(float** in, float** out, int64_t first, int64_t last) {
  Vector total = {};
  for (int64_t i = first; i < last; i += kLanes) {
    Vector s = Vector{} + 1.0f;  // not zero: a loop that stores zeros becomes memset
    for (int r = 0; r < R; ++r) s += *reinterpret_cast<Vector*>(in[r] + i);
    for (int w = 0; w < W; ++w) *reinterpret_cast<Vector*>((in_place ? in : out)[w] + i) = s;
    if (W == 0) total += s;
  }
  if (W == 0) sink = total[0];
}

using Stream = void (*)(float**, float**, int64_t, int64_t);

Stream stream_of(int reads, int writes, bool in_place) {
  switch (reads * 10 + writes) {
    case 1: return stream_loop<0, 1, false>;
    case 10: return stream_loop<1, 0, false>;
    case 20: return stream_loop<2, 0, false>;
    case 11: return in_place ? stream_loop<1, 1, true> : stream_loop<1, 1, false>;
    case 21: return in_place ? stream_loop<2, 1, true> : stream_loop<2, 1, false>;
    case 22: return stream_loop<2, 2, false>;
    case 31: return stream_loop<3, 1, false>;
    case 32: return in_place ? stream_loop<3, 2, true> : stream_loop<3, 2, false>;
    case 43: return stream_loop<4, 3, true>;
  }
  return nullptr;
}

}  // namespace

extern "C" {

// Seconds for `flops` float32 operations, an fma being two.
double ceiling_fma(int threads, double flops) {
  const auto n = static_cast<int64_t>(flops / (2.0 * kAccumulators * kLanes * threads)) + 1;
  const double s = together(threads, [=](int) { fma_loop(n); });
  return s * flops / (2.0 * kAccumulators * kLanes * n * threads);
}

// The same for pairs of bfloat16 products; 0 where there is no such instruction.
double ceiling_bf16(int threads, double flops) {
#if defined(__AVX512BF16__)
  const auto n = static_cast<int64_t>(flops / (4.0 * kAccumulators * 16 * threads)) + 1;
  const double s = together(threads, [=](int) {
    __m512 acc[kAccumulators];
    for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
    __m512bh a = (__m512bh)_mm512_set1_ps(1e-3f), b = a;
    for (int64_t k = 0; k < n; ++k) {
#pragma GCC unroll 24
      for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm512_dpbf16_ps(acc[i], a, b);
      asm volatile("" : "+v"(a), "+v"(b));
    }
    float sum = 0;
    for (auto& v : acc) sum += v[0];
    sink = sum;
  });
  return s * flops / (4.0 * kAccumulators * 16 * n * threads);
#else
  (void)threads, (void)flops;
  return 0;
#endif
}

// Seconds for one pass over arrays of n floats (a multiple of 16, 64-byte aligned); below 0: no such combination.
double ceiling_stream(int threads, float** in, int reads, float** out, int writes, int in_place, int64_t n, int passes) {
  Stream f = stream_of(reads, writes, in_place);
  if (!f) return -1;
  int64_t blocks = n / 16;
  double s = together(threads, [=](int t) {
    for (int p = 0; p < passes; ++p) f(in, out, blocks * t / threads * 16, blocks * (t + 1) / threads * 16);
  });
  return s / passes;
}
}
