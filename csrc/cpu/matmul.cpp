// out (M, N) = a (M, K) b (K, N). Both operands are packed into panels, then a register tile walks K. Every element is
// one fma chain over k that starts from C, so tile and block sizes, M, and threads do not show in the bits.
// Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
#include "cpu/pack.h"
#include "cpu/table.h"

namespace gristmill::GM_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int MR = 12, NV = 2;  // 24 of 32 registers accumulate
#else
constexpr int MR = 6, NV = 1;
#endif
constexpr int NR = NV * W;
constexpr int64_t KC = 384, MC = 8 * MR, NC = 16 * NR;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
bool pairs(const MatmulArgs* a) {
#if defined(__AVX512BF16__)
  return a->compute == DType::bf16;
#else
  (void)a;
  return false;
#endif
}

// bfloat16 outputs are rounded once, at the end of K, so their K is not cut.
int64_t k_block(const MatmulArgs* a) { return a->out.dtype == DType::f32 ? smaller(KC, a->K) : a->K; }

int64_t even(int64_t k) { return (k + 1) / 2 * 2; }

struct Job {
  const MatmulArgs* args;
  int64_t batch, k0, kc;
  float *a, *b;          // panels of this k block; pairs of bfloat16 fit into half of it
  int64_t first, reach;  // b's panel of column c begins at b + c * reach + first
  int64_t mc, nc;        // rows and columns of a task
};

int64_t tasks(const Job* j) { return ceil_div(j->args->M, j->mc) * ceil_div(j->args->N, j->nc); }

// Blocks of MC x NC, halved down to a few tiles until every thread has some to take.
void share_out(Job* j, int32_t threads) {
  constexpr int64_t kEach = 4, kFewest = 2;  // tasks of a thread; tiles a block keeps each way
  j->mc = MC, j->nc = NC;
  while (threads > 1 && tasks(j) < kEach * threads && (j->nc > kFewest * NR || j->mc > kFewest * MR))
    (j->nc > kFewest * NR ? j->nc : j->mc) /= 2;
}

// Panel of rows row.. of an operand (strides: row sr, k sk) for k0.. of the current block.
template <class T>
void pack_one(const MatmulArgs* m, float* dst, const View& v, int64_t batch, int64_t row, int64_t n, int64_t P,
              int64_t sr, int64_t sk, int64_t k0, int64_t kc) {
  const T* src = static_cast<const T*>(v.data) + batch * v.strides[0] + row * sr + k0 * sk;
#if defined(__AVX512BF16__)
  if (pairs(m)) return pack_pairs(reinterpret_cast<uint16_t*>(dst), src, sr, sk, n, P, kc);
#endif
  pack_panel(dst, src, sr, sk, n, P, kc, m->compute == DType::bf16 && v.dtype == DType::f32);
}

void pack_rows(const MatmulArgs* m, float* dst, bool is_a, int64_t batch, int64_t row, int64_t k0, int64_t kc) {
  const View& v = is_a ? m->a : m->b;
  int64_t P = is_a ? MR : NR, n = smaller(P, (is_a ? m->M : m->N) - row);
  int64_t sr = is_a ? v.strides[1] : v.strides[2], sk = is_a ? v.strides[2] : v.strides[1];
  if (v.dtype == DType::f32)
    pack_one<float>(m, dst, v, batch, row, n, P, sr, sk, k0, kc);
  else
    pack_one<uint16_t>(m, dst, v, batch, row, n, P, sr, sk, k0, kc);
}

void pack(void* p, int64_t i) {
  auto* j = static_cast<const Job*>(p);
  int64_t panels_a = ceil_div(j->args->M, MR);
  bool is_a = i < panels_a;
  int64_t row = is_a ? i * MR : (i - panels_a) * NR;
  pack_rows(j->args, (is_a ? j->a : j->b) + row * even(j->kc), is_a, j->batch, row, j->k0, j->kc);
}

// c[R][NR] += the first R rows of an a panel times a b panel.
template <int R>
void multiply(float* c, const float* a, const float* b, int64_t kc) {
  vf acc[R][NV];
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < NV; ++v) acc[i][v] = vload(c + i * NR + v * W);
  for (int64_t k = 0; k < kc; ++k) {
    vf row[NV];
    for (int v = 0; v < NV; ++v) row[v] = vload(b + k * NR + v * W);
    for (int i = 0; i < R; ++i)
      for (int v = 0; v < NV; ++v) acc[i][v] = vfma(vset(a[k * MR + i]), row[v], acc[i][v]);
  }
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < NV; ++v) vstore(c + i * NR + v * W, acc[i][v]);
}

#if defined(__AVX512BF16__)
template <int R>
void multiply_pairs(float* c, const float* a, const float* b, int64_t kc) {
  __m512 acc[R][NV];
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < NV; ++v) acc[i][v] = _mm512_loadu_ps(c + i * NR + v * W);
  for (int64_t k = 0; k < (kc + 1) / 2; ++k) {
    __m512bh row[NV];
    for (int v = 0; v < NV; ++v) row[v] = (__m512bh)_mm512_loadu_ps(b + k * NR + v * W);
    for (int i = 0; i < R; ++i)
      for (int v = 0; v < NV; ++v)
        acc[i][v] = _mm512_dpbf16_ps(acc[i][v], (__m512bh)_mm512_set1_ps(a[k * MR + i]), row[v]);
  }
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < NV; ++v) _mm512_storeu_ps(c + i * NR + v * W, acc[i][v]);
}
#endif

template <int R>
void advance(const MatmulArgs* m, float* t, const float* a, const float* b, int64_t kc) {
#if defined(__AVX512BF16__)
  if (pairs(m)) return multiply_pairs<R>(t, a, b, kc);
#endif
  (void)m;
  multiply<R>(t, a, b, kc);
}

template <class T>
void read_tile(float* t, const T* c, int64_t ldc, int64_t m, int64_t n, bool load) {
  for (int64_t i = 0; i < MR; ++i)
    for (int64_t v = 0; v < NR; v += W)
      vstore(t + i * NR + v, load && i < m && v < n ? vload_n(c + i * ldc + v, n - v) : vzero());
}

template <class T>
void write_tile(T* c, const float* t, int64_t ldc, int64_t m, int64_t n) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t v = 0; v < n; v += W) vstore_n(c + i * ldc + v, vload(t + i * NR + v), n - v);
}

template <class T>
T* place(const MatmulArgs* m, int64_t batch, int64_t row, int64_t col) {
  return static_cast<T*>(m->out.data) + batch * m->out.strides[0] + row * m->out.strides[1] + col;
}

template <class T>
void tile(const Job* j, int64_t row, int64_t col) {
  const MatmulArgs* m = j->args;
  int64_t ldc = m->out.strides[1], rows = smaller(MR, m->M - row), cols = smaller(NR, m->N - col);
  T* c = place<T>(m, j->batch, row, col);
  alignas(64) float t[MR * NR];
  read_tile(t, c, ldc, rows, cols, j->k0 > 0 || m->out.accumulate);
  advance<MR>(m, t, j->a + row * even(j->kc), j->b + col * j->reach + j->first, j->kc);
  write_tile(c, t, ldc, rows, cols);
}

void block(void* p, int64_t i) {
  auto* j = static_cast<const Job*>(p);
  const MatmulArgs* m = j->args;
  int64_t across = ceil_div(m->N, j->nc), row0 = i / across * j->mc, col0 = i % across * j->nc;
  for (int64_t col = col0; col < smaller(col0 + j->nc, m->N); col += NR)
    for (int64_t row = row0; row < smaller(row0 + j->mc, m->M); row += MR)
      m->out.dtype == DType::f32 ? tile<float>(j, row, col) : tile<uint16_t>(j, row, col);
}

// At most one tile of rows (one token's, say): b is read once, packed piece by piece where it is used.
constexpr int64_t kFew = 4, kPiece = 128;

template <class T, int R>
void thin_panel(const Job* j, int64_t col) {
  const MatmulArgs* m = j->args;
  int64_t cols = smaller(NR, m->N - col);
  T* c = place<T>(m, j->batch, 0, col);
  alignas(64) float t[MR * NR], b[kPiece * NR];
  read_tile(t, c, m->out.strides[1], m->M, cols, m->out.accumulate);
  for (int64_t k = 0; k < m->K; k += kPiece) {
    int64_t kc = smaller(kPiece, m->K - k), at = pairs(m) ? k / 2 : k;
    if (!m->b.packed) pack_rows(m, b, false, j->batch, col, k, kc);
    advance<R>(m, t, j->a + at * MR, m->b.packed ? j->b + col * j->reach + at * NR : b, kc);
  }
  write_tile(c, t, m->out.strides[1], m->M, cols);
}

template <class T>
void thin_rows(const Job* j, int64_t col) {
  if (j->args->M == 1) return thin_panel<T, 1>(j, col);
  if (j->args->M <= kFew) return thin_panel<T, kFew>(j, col);
  thin_panel<T, MR>(j, col);
}

void thin(void* p, int64_t i) {
  auto* j = static_cast<const Job*>(p);
  j->args->out.dtype == DType::f32 ? thin_rows<float>(j, i * NR) : thin_rows<uint16_t>(j, i * NR);
}

struct PackJob {
  MatmulArgs args;
  float* out;
};

void pack_whole(void* p, int64_t i) {
  auto* j = static_cast<const PackJob*>(p);
  pack_rows(&j->args, j->out + i * NR * even(j->args.K), false, 0, i * NR, 0, j->args.K);
}

bool floating(DType t) { return t == DType::f32 || t == DType::bf16; }

}  // namespace

int64_t matmul_workspace(const MatmulArgs* a, int32_t) {
  if (a->M <= MR) return MR * even(a->K) * 4;
  int64_t panels = ceil_div(a->M, MR) * MR + (a->b.packed ? 0 : ceil_div(a->N, NR) * NR);
  return panels * even(k_block(a)) * 4 + 64;
}

Status matmul(Context* ctx, const MatmulArgs* a) {
  if (!floating(a->out.dtype) || !floating(a->a.dtype) || !floating(a->b.dtype) || !floating(a->compute))
    return Status::unsupported;
  if ((a->out.strides[2] != 1 && a->N > 1) || (a->b.packed && a->batch > 1)) return Status::unsupported;
  if (ctx->workspace_bytes < matmul_workspace(a, ctx->threads)) return Status::workspace;
  int64_t step = k_block(a), panels_a = ceil_div(a->M, MR), panels_b = a->b.packed ? 0 : ceil_div(a->N, NR);
  Job j{};
  j.args = a;
  share_out(&j, ctx->threads);
  j.a = static_cast<float*>(ctx->workspace);
  j.b = a->b.packed ? static_cast<float*>(const_cast<void*>(a->b.packed)) : j.a + panels_a * MR * even(step);
  for (j.batch = 0; j.batch < a->batch; ++j.batch) {
    if (a->M <= MR) {
      pack_rows(a, j.a, true, j.batch, 0, 0, a->K);
      j.reach = even(a->K);
      ctx->parallel_for(ctx, ceil_div(a->N, NR), thin, &j);
      continue;
    }
    for (j.k0 = 0; j.k0 < a->K || j.k0 == 0; j.k0 += step > 0 ? step : 1) {
      j.kc = smaller(step, a->K - j.k0);
      j.reach = even(a->b.packed ? a->K : j.kc);
      j.first = !a->b.packed ? 0 : NR * (pairs(a) ? j.k0 / 2 : j.k0);
      ctx->parallel_for(ctx, panels_a + panels_b, pack, &j);
      ctx->parallel_for(ctx, tasks(&j), block, &j);
    }
  }
  return Status::ok;
}

// Bytes of the packed operand, not of scratch: the one entry whose result has a shape of its own.
int64_t matmul_pack_workspace(const MatmulPackArgs* a, int32_t) { return ceil_div(a->N, NR) * NR * even(a->K) * 4; }

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
