// out (M, N) = a (M, K) b (K, N). Both operands are packed into panels, then a register tile walks K. Every element is
// one fma chain over k that starts from C, so tile and block sizes, M, and threads do not show in the bits.
// Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
#include <atomic>

#include "cpu/matmul_thin.h"
#include "cpu/table.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kPanelBytes = 128 << 10;  // of b over one block of k: what one tile streams
constexpr int64_t kBlockBytes = 600 << 10;  // of b, kept in the second-level cache while strips of a pass by
constexpr int64_t kUncut = 4096;            // bfloat16 results are rounded once: up to here their K is not cut
constexpr int64_t kTasks = 48;              // of a thread in one block of k, so that none waits long at the end
constexpr int64_t kMost = 8;                // panels packed together, and strips of a task, at most

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

bool pairs(const MatmulArgs* a) { return kPairs && a->compute == DType::bf16; }

// Steps the register tile makes over k; the floats of one row of a panel.
int64_t steps(const MatmulArgs* a, int64_t k) { return pairs(a) ? (k + 1) / 2 : k; }

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
  int64_t packed, width;   // panels packed by one; columns of a task of a thin product
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
  j->strips = threads > 1 ? larger(1, strips_of(m) * blocks / (kTasks * threads)) : kMost;
  while (threads > 1 && tasks(j) < kTasks * threads && j->panels > 2) j->panels = ceil_div(j->panels, 2);
  j->packed = threads > 1 ? larger(1, smaller(kMost, (strips_of(m) + panels_of(m)) / (kTasks * threads))) : kMost;
}

template <int P, class T>
void pack_typed(const MatmulArgs* m, float* dst, const Source<T>& s, int64_t row, int64_t panels, int64_t n) {
  if constexpr (kPairs)
    if (pairs(m)) return pack_panels<Paired, P>(dst, s, row, panels, n);
  if (m->compute == DType::bf16 && sizeof(T) == 4) return pack_panels<Rounded, P>(dst, s, row, panels, n);
  pack_panels<Plain, P>(dst, s, row, panels, n);
}

// Panels of P rows from `row` of an operand (rows, K) with strides (sr, sk), over kc from k0.
template <int P>
void pack_operand(const MatmulArgs* m, float* dst, const View& v, int64_t batch, int64_t rows, int64_t sr, int64_t sk,
                  int64_t row, int64_t panels, int64_t k0, int64_t kc) {
  int64_t at = batch * v.strides[0] + k0 * sk, n = steps(m, kc);
  if (v.dtype == DType::f32)
    return pack_typed<P>(m, dst, Source<float>{static_cast<const float*>(v.data) + at, sr, sk, rows, kc}, row, panels,
                         n);
  pack_typed<P>(m, dst, Source<uint16_t>{static_cast<const uint16_t*>(v.data) + at, sr, sk, rows, kc}, row, panels, n);
}

void pack_a(const MatmulArgs* m, float* dst, int64_t batch, int64_t strip, int64_t count, int64_t k0, int64_t kc) {
  pack_operand<MR>(m, dst, m->a, batch, m->M, m->a.strides[1], m->a.strides[2], strip * MR, count, k0, kc);
}
void pack_b(const MatmulArgs* m, float* dst, int64_t batch, int64_t panel, int64_t count, int64_t k0, int64_t kc) {
  pack_operand<NR>(m, dst, m->b, batch, m->N, m->b.strides[2], m->b.strides[1], panel * NR, count, k0, kc);
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
  for (int64_t row = row0; row < smaller(row0 + j->strips * MR, m->M); row += MR)
    for (int64_t panel = panel0; panel < smaller(panel0 + j->panels, panels_of(m)); ++panel) {
      int64_t col = panel * NR, rows = smaller(MR, m->M - row), cols = smaller(NR, m->N - col);
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

// A thin product: a task is `width` columns over the whole of k. Few rows take b from where it lies.
bool few(const MatmulArgs* m) {
  return kFewRows > 0 && m->M <= kFewRows && !m->b.packed && (m->b.strides[1] == 1 || m->b.strides[2] == 1);
}

// Columns of a task.
int64_t thin_width(const MatmulArgs* m, int32_t threads) {
  if (!few(m) || m->b.strides[1] == 1) return NR;
  int64_t most = kThin * NR / (m->M == 1 ? 2 : 4);
  return smaller(most, round_up(ceil_div(m->N, threads > 1 ? 4 * threads : 1), W));
}

template <class Step, class Mode, class T>
void few_rows(const Job* j, float* c, const Source<T>& b, int64_t col) {
  int64_t n = steps(j->args, j->args->K);
  if (j->args->M == 1)
    b.col == 1 ? few_along<Step, Mode, 1>(c, j->a, b, col, n) : few_across<Step, Mode, 1>(c, j->width, j->a, b, col, n);
  else
    b.col == 1 ? few_along<Step, Mode, 4>(c, j->a, b, col, n) : few_across<Step, Mode, 4>(c, j->width, j->a, b, col, n);
}

template <class T>
void few_columns(const Job* j, float* c, int64_t col) {
  const MatmulArgs* m = j->args;
  Source<T> b{static_cast<const T*>(m->b.data) + j->batch * m->b.strides[0], m->b.strides[2], m->b.strides[1], m->N,
              m->K};
  if constexpr (kPairs)
    if (pairs(m)) return few_rows<Paired, Pair>(j, c, b, col);
  if (m->compute == DType::bf16 && sizeof(T) == 4) return few_rows<Rounded, Single>(j, c, b, col);
  few_rows<Plain, Single>(j, c, b, col);
}

template <class Mode>
void thin_panel(const Job* j, float* c, int64_t col) {
  const MatmulArgs* m = j->args;
  int64_t all = steps(m, m->K), each = pairs(m) ? 2 : 1;
  alignas(64) float piece[kPiece * NR];
  for (int64_t k = 0; k < all; k += m->b.packed ? all : kPiece) {
    int64_t n = m->b.packed ? all : smaller(kPiece, all - k);
    const float* b = m->b.packed ? j->b + col * all : piece;
    if (!m->b.packed) pack_b(m, piece, j->batch, col / NR, 1, k * each, smaller(kPiece * each, m->K - k * each));
    for (int64_t row = 0; row < m->M; row += MR, c += MR * NR)
      tile_of<Mode>(smaller(MR, m->M - row), c, NR, c, NR, j->a + row * all + k * MR, b, n);
    c -= strips_of(m) * MR * NR;
  }
}

template <class T>
void thin_columns(const Job* j, int64_t col) {
  const MatmulArgs* m = j->args;
  int64_t width = j->width, cols = smaller(width, m->N - col), ldc = m->out.strides[1];
  alignas(64) float c[kThin * NR];
  T* out = static_cast<T*>(m->out.data) + j->batch * m->out.strides[0] + col;
  for (int64_t i = 0; i < m->M; ++i)
    for (int64_t v = 0; v < width; v += W)
      vstore(c + i * width + v, m->out.accumulate && v < cols ? vload_n(out + i * ldc + v, cols - v) : vzero());
  if (few(m))
    m->b.dtype == DType::f32 ? few_columns<float>(j, c, col) : few_columns<uint16_t>(j, c, col);
  else
    pairs(m) ? thin_panel<Pair>(j, c, col) : thin_panel<Single>(j, c, col);
  for (int64_t i = 0; i < m->M; ++i)
    for (int64_t v = 0; v < cols; v += W) vstore_n(out + i * ldc + v, vload(c + i * width + v), cols - v);
}

void thin(void* p, int64_t i) {
  auto* j = static_cast<const Job*>(p);
  int64_t col = i * j->width;
  j->args->out.dtype == DType::f32 ? thin_columns<float>(j, col) : thin_columns<uint16_t>(j, col);
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
  bool is_thin = a->M <= kThin;
  int64_t n = steps(a, is_thin ? a->K : k_block(a)), rows = strips_of(a) * MR, cols = panels_of(a) * NR;
  bool cut = !is_thin && a->out.dtype == DType::bf16 && k_block(a) < a->K;
  int64_t floats = n * (rows + (is_thin || a->b.packed ? 0 : cols)) + (cut ? rows * cols : 0) + 2 * kAhead * NR;
  return round_up(floats * 4, 64);
}

// One product of the batch, on the threads of ctx.
void product(Context* ctx, const MatmulArgs* a, int64_t batch) {
  int64_t step = k_block(a), rows = strips_of(a) * MR, cols = panels_of(a) * NR;
  Job j{};
  j.args = a;
  j.batch = batch;
  share_out(&j, ctx->threads);
  j.width = thin_width(a, ctx->threads);
  j.a = static_cast<float*>(ctx->workspace);
  j.b = a->b.packed ? static_cast<float*>(const_cast<void*>(a->b.packed)) : j.a + rows * steps(a, step);
  if (a->out.dtype == DType::bf16 && step < a->K) j.image = j.a + (rows + (a->b.packed ? 0 : cols)) * steps(a, step);
  if (a->M <= kThin) {
    pack_a(a, j.a, batch, 0, strips_of(a), 0, a->K);
    return ctx->parallel_for(ctx, ceil_div(a->N, j.width), thin, &j);
  }
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
