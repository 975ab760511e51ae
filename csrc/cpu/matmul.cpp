// out (M, N) = a (M, K) b (K, N). Both operands are packed into panels, then a register tile walks K; few rows
// (matmul_thin.h) leave b where it lies, small products (matmul_small.h) pack it while they multiply. Every element is
// one fma chain over k that starts from C, so tile and block sizes, M, and threads do not show in the bits.
// Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
#include <atomic>

#include "cpu/matmul_small.h"
#include "cpu/matmul_thin.h"
#include "cpu/table.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kPanelBytes = (kDown ? 32 : 128) << 10;  // of b over one block of k: what one tile streams
constexpr int64_t kBlockBytes = 600 << 10;   // of b, kept in the second-level cache while strips of a pass by
constexpr int64_t kUncut = 4096;             // bfloat16 results are rounded once: up to here their K is not cut
constexpr int64_t kTasks = 48;               // of a thread in one block of k, so that none waits long at the end
constexpr int64_t kMost = 8;                 // panels packed together at most
constexpr int64_t kStrips = kDown ? 32 : 8;  // of a task on one thread

// K in equal blocks, none larger than the cache likes.
int64_t k_block(const MatmulArgs* a) {
  int64_t most = kPanelBytes / (NR * 4) * (pairs(a) ? 2 : 1), blocks = ceil_div(a->K, most);
  if (blocks < 2 || (a->out.dtype == DType::bf16 && a->K <= kUncut)) return a->K;
  return round_up(ceil_div(a->K, blocks), 32);
}

struct Job {
  const MatmulArgs* args;
  int64_t batch, k0, kc;
  float *a, *b;            // panels of this block of k
  float* image;            // (M, NR * panels) sums so far of a bfloat16 result whose K is cut, else null
  int64_t first, reach;    // b's panel of column c begins at b + c * reach + first
  int64_t strips, panels;  // of a and b in a task
  int64_t packed;          // panels packed by one
};

int64_t strips_of(const MatmulArgs* m) { return ceil_div(m->M, MR); }
int64_t panels_of(const MatmulArgs* m) { return ceil_div(m->N, NR); }

int64_t tasks(const Job* j) {
  return ceil_div(strips_of(j->args), j->strips) * ceil_div(panels_of(j->args), j->panels);
}

// As many panels of b as stay in the cache, and few enough strips of a that every thread has tasks to the end.
void share_out(Job* j, int32_t threads) {
  const MatmulArgs* m = j->args;
  int64_t fit = kBlockBytes / (NR * 4 * steps(m, k_block(m)) + 1);
  int64_t blocks = ceil_div(panels_of(m), fit < 1 ? 1 : fit);
  j->panels = ceil_div(panels_of(m), blocks);
  j->strips = threads > 1 ? larger(1, strips_of(m) * blocks / (kTasks * threads)) : kStrips;
  while (threads > 1 && tasks(j) < kTasks * threads && j->panels > 2) j->panels = ceil_div(j->panels, 2);
  j->packed = threads > 1 ? larger(1, smaller(kMost, (strips_of(m) + panels_of(m)) / (kTasks * threads))) : kMost;
}

void pack(void* p, int64_t i) {
  auto* j = static_cast<const Job*>(p);
  int64_t of_a = ceil_div(strips_of(j->args), j->packed), n = steps(j->args, j->kc),
          at = (i < of_a ? i : i - of_a) * j->packed;
  if (i < of_a)
    return pack_a(j->args, j->a + at * MR * n, j->batch, at, smaller(j->packed, strips_of(j->args) - at), j->k0, j->kc);
  pack_b(j->args, j->b + at * NR * n, j->batch, at, smaller(j->packed, panels_of(j->args) - at), j->k0, j->kc);
}

template <class Mode, class From, class To>
void start(int64_t rows, To* to, int64_t ldt, const From* from, int64_t ldf, const float* a, const float* b,
           int64_t n) {
  if (from) return tile_of<Mode>(rows, to, ldt, from, ldf, a, b, n);
  tile_of<Mode>(rows, to, ldt, static_cast<const Nothing*>(nullptr), 0, a, b, n);
}

template <class T>
void copy_tile(T* to, int64_t ldt, const T* from, int64_t ldf, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < cols; ++c) to[i * ldt + c] = from[i * ldf + c];
}

template <class Mode, class From, class To>
void edge(int64_t rows, int64_t cols, To* to, int64_t ldt, const From* from, int64_t ldf, const float* a,
          const float* b, int64_t n) {
  if (cols == NR && rows == tile_rows(rows)) return start<Mode>(rows, to, ldt, from, ldf, a, b, n);
  alignas(64) From in[MR * NR];
  alignas(64) To out[MR * NR];
  if (from) copy_tile(in, NR, from, ldf, rows, cols);
  start<Mode>(rows, out, NR, from ? in : nullptr, NR, a, b, n);
  copy_tile(to, ldt, out, NR, rows, cols);
}

template <class Mode, class T>
void task(const Job* j, int64_t row0, int64_t panel0) {
  const MatmulArgs* m = j->args;
  int64_t n = steps(m, j->kc), ldc = m->out.strides[1], ldi = panels_of(m) * NR;
  bool begun = j->k0 > 0, last = j->k0 + j->kc >= m->K;
  T* c = static_cast<T*>(m->out.data) + j->batch * m->out.strides[0];
  int64_t strips = smaller(j->strips, strips_of(m) - row0 / MR), panels = smaller(j->panels, panels_of(m) - panel0);
  for (int64_t i = 0; i < strips * panels; ++i) {
    int64_t row = row0 + (kDown ? i % strips : i / panels) * MR,
            col = (panel0 + (kDown ? i / strips : i % panels)) * NR;
    int64_t rows = smaller(MR, m->M - row), cols = smaller(NR, m->N - col);
    const float *a = j->a + row * n, *b = j->b + col * j->reach + j->first;
    T *to = c + row * ldc + col, *from = begun || m->out.accumulate ? to : nullptr;
    if (!j->image) {
      edge<Mode>(rows, cols, to, ldc, from, ldc, a, b, n);
      continue;
    }
    float* sum = j->image + row * ldi + col;
    if (last)
      edge<Mode>(rows, cols, to, ldc, sum, ldi, a, b, n);
    else if (begun)
      edge<Mode>(rows, cols, sum, ldi, sum, ldi, a, b, n);
    else
      edge<Mode>(rows, cols, sum, ldi, from, ldc, a, b, n);
  }
}

void block(void* p, int64_t i) {
  auto* j = static_cast<const Job*>(p);
  const MatmulArgs* m = j->args;
  int64_t down = ceil_div(strips_of(m), j->strips), row = i % down * j->strips * MR, panel = i / down * j->panels;
  bool f32 = m->out.dtype == DType::f32;
  if (pairs(m)) return f32 ? task<Pair, float>(j, row, panel) : task<Pair, uint16_t>(j, row, panel);
  f32 ? task<Single, float>(j, row, panel) : task<Single, uint16_t>(j, row, panel);
}

struct PackJob {
  MatmulArgs args;
  float* out;
};

void pack_whole(void* p, int64_t i) {
  auto* j = static_cast<const PackJob*>(p);
  pack_b(&j->args, j->out + i * NR * steps(&j->args, j->args.K), 0, i, 1, 0, j->args.K);
}

bool floating(DType t) { return t == DType::f32 || t == DType::bf16; }

int64_t one_workspace(const MatmulArgs* a) {
  if (a->M > kFewRows && is_small(a)) return round_up(small_workspace(a), 64);
  bool is_thin = a->M <= kThin;
  int64_t n = steps(a, is_thin ? a->K : k_block(a)), rows = strips_of(a) * MR, cols = panels_of(a) * NR;
  bool cut = !is_thin && a->out.dtype == DType::bf16 && k_block(a) < a->K;
  int64_t floats = n * (rows + (is_thin || a->b.packed ? 0 : cols)) + (cut ? rows * cols : 0) + 2 * kAhead * NR;
  return round_up(floats * 4, 64);
}

// One product of the batch, on the threads of ctx.
void product(Context* ctx, const MatmulArgs* a, int64_t batch) {
  if (a->M == 0 || a->N == 0) return;
  if (a->M > kFewRows && is_small(a)) return small_product(ctx, a, batch);
  if (a->M <= kThin) return thin_product(ctx, a, batch);
  int64_t step = k_block(a), rows = strips_of(a) * MR, cols = panels_of(a) * NR;
  Job j{};
  j.args = a;
  j.batch = batch;
  share_out(&j, ctx->threads);
  j.a = static_cast<float*>(ctx->workspace);
  j.b = a->b.packed ? static_cast<float*>(const_cast<void*>(a->b.packed)) : j.a + rows * steps(a, step);
  if (a->out.dtype == DType::bf16 && step < a->K) j.image = j.a + (rows + (a->b.packed ? 0 : cols)) * steps(a, step);
  int64_t packs = ceil_div(strips_of(a), j.packed) + (a->b.packed ? 0 : ceil_div(panels_of(a), j.packed));
  for (; j.k0 < a->K || j.k0 == 0; j.k0 += step > 0 ? step : 1) {
    j.kc = smaller(step, a->K - j.k0);
    j.reach = steps(a, a->b.packed ? a->K : j.kc);
    j.first = a->b.packed ? NR * steps(a, j.k0) : 0;
    ctx->parallel_for(ctx, packs, pack, &j);
    ctx->parallel_for(ctx, tasks(&j), block, &j);
  }
}

// Small products of a batch go to one thread each.
constexpr int64_t kSmall = 256 * 256 * 256;
bool one_each(const MatmulArgs* a, int32_t threads) {
  return threads > 1 && a->batch > 1 && a->M * a->N * a->K <= kSmall;
}

struct Batch {
  Context* ctx;
  const MatmulArgs* args;
  std::atomic<int64_t> next{0};
};

void serial(Context*, int64_t n, void (*fn)(void*, int64_t), void* arg) {
  for (int64_t i = 0; i < n; ++i) fn(arg, i);
}

void share_of_batch(void* p, int64_t lane) {
  auto* b = static_cast<Batch*>(p);
  int64_t bytes = one_workspace(b->args);
  Context alone{1, serial, static_cast<char*>(b->ctx->workspace) + lane * bytes, bytes, nullptr};
  for (int64_t i; (i = b->next.fetch_add(1, std::memory_order_relaxed)) < b->args->batch;) product(&alone, b->args, i);
}

}  // namespace

int64_t matmul_workspace(const MatmulArgs* a, int32_t threads) {
  return one_workspace(a) * (one_each(a, threads) ? threads : 1);
}

Status matmul(Context* ctx, const MatmulArgs* a) {
  if (!floating(a->out.dtype) || !floating(a->a.dtype) || !floating(a->b.dtype) || !floating(a->compute))
    return Status::unsupported;
  if ((a->out.strides[2] != 1 && a->N > 1) || (a->b.packed && a->batch > 1)) return Status::unsupported;
  if (ctx->workspace_bytes < matmul_workspace(a, ctx->threads)) return Status::workspace;
  if (one_each(a, ctx->threads)) {
    Batch b{ctx, a};
    ctx->parallel_for(ctx, ctx->threads, share_of_batch, &b);
    return Status::ok;
  }
  for (int64_t i = 0; i < a->batch; ++i) product(ctx, a, i);
  return Status::ok;
}

// Bytes of the packed operand, not of scratch: the one entry whose result has a shape of its own.
int64_t matmul_pack_workspace(const MatmulPackArgs* a, int32_t) {
  MatmulArgs m{};
  m.compute = a->compute;
  return ceil_div(a->N, NR) * NR * steps(&m, a->K) * 4;
}

// All panels of b, each over the whole of K, so that a product may cut K where it likes.
Status matmul_pack(Context* ctx, const MatmulPackArgs* a) {
  if (a->out.dtype != DType::u8 || !floating(a->b.dtype) || !floating(a->compute)) return Status::unsupported;
  PackJob j{};
  j.args.b = a->b;
  j.args.b.strides[1] = a->b.strides[0], j.args.b.strides[2] = a->b.strides[1];
  j.args.N = a->N, j.args.K = a->K, j.args.compute = a->compute;
  j.out = static_cast<float*>(a->out.data);
  ctx->parallel_for(ctx, ceil_div(a->N, NR), pack_whole, &j);
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
