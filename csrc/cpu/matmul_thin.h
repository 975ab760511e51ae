// Few rows of a: every element of b is used so seldom that a packed copy of it in memory would cost more than the
// product. Up to kFewRows, b is taken from where it lies, turned in registers; above, piece by piece through a buffer
// in the first-level cache. The chains over k are those of the register tile.
#pragma once
#include "cpu/matmul_operand.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kThin = 8 * MR;   // rows of a thin product, at most
constexpr int64_t kRowsAtOnce = 4;  // of a b whose columns lie side by side
constexpr int64_t kPiece = 96;      // steps of b in the buffer: 12 kB

#if defined(__AVX512F__)

constexpr int kFewRows = 4;

// c (R, NR) += a (steps, R)^T b for NR columns of b, each of which lies along k.
template <class Step, class Mode, int R, class T>
void few_along(float* c, const float* a, const Source<T>& b, int64_t col, int64_t steps) {
  for (int64_t v = 0; v < NR; v += W) {
    vf acc[R][1];
    begin(acc, c + v, NR);
    for (int64_t k = 0; k < steps; k += 16) {
      __m512i t[16];
      turned<Step>(t, b, col + v, k);
      int64_t n = smaller(16, steps - k);
#pragma GCC unroll 16
      for (int u = 0; u < 16; ++u) {
        if (u >= n) break;
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i)
          acc[i][0] = Mode::step(a[(k + u) * R + i], vf{{_mm512_castsi512_ps(t[u])}}, acc[i][0]);
      }
    }
    store(c + v, NR, acc);
  }
}

// c (R, width) += a (steps, R)^T b for columns of b that lie side by side: memory is read along kRowsAtOnce of its
// rows.
template <class Step, class Mode, int R, class T>
void few_across(float* c, int64_t width, const float* a, const Source<T>& b, int64_t col, int64_t steps) {
  for (int64_t k = 0; k < steps; k += kRowsAtOnce)
    for (int64_t v = 0; v < width; v += W) {
      __mmask16 m = first(b.rows - col - v);
      vf acc[R][1];
      begin(acc, c + v, width);
#pragma GCC unroll 4
      for (int64_t u = 0; u < kRowsAtOnce; ++u) {
        if (k + u >= steps) break;
        vf row{{_mm512_castsi512_ps(across(Step{}, b, col + v, k + u, m))}};
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) acc[i][0] = Mode::step(a[(k + u) * R + i], row, acc[i][0]);
      }
      store(c + v, width, acc);
    }
}

#else

constexpr int kFewRows = 0;  // no turning in registers
template <class Step, class Mode, int R, class T>
void few_along(float*, const float*, const Source<T>&, int64_t, int64_t) {}
template <class Step, class Mode, int R, class T>
void few_across(float*, int64_t, const float*, const Source<T>&, int64_t, int64_t) {}

#endif

// One product of a batch. A task is `width` columns over the whole of k.
struct Thin {
  const MatmulArgs* args;
  int64_t batch;
  const float *a, *b;  // panels of `height` rows; of b where it came packed
  int64_t height, width;
};

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
void few_rows(const Thin* j, float* c, const Source<T>& b, int64_t col) {
  int64_t n = steps(j->args, j->args->K);
  if (j->height == 1)
    b.col == 1 ? few_along<Step, Mode, 1>(c, j->a, b, col, n) : few_across<Step, Mode, 1>(c, j->width, j->a, b, col, n);
  else
    b.col == 1 ? few_along<Step, Mode, 4>(c, j->a, b, col, n) : few_across<Step, Mode, 4>(c, j->width, j->a, b, col, n);
}

template <class T>
void few_columns(const Thin* j, float* c, int64_t col) {
  const MatmulArgs* m = j->args;
  Source<T> b{static_cast<const T*>(m->b.data) + j->batch * m->b.strides[0], m->b.strides[2], m->b.strides[1], m->N,
              m->K};
  if constexpr (kPairs)
    if (pairs(m)) return few_rows<Paired, Pair>(j, c, b, col);
  if (m->compute == DType::bf16 && sizeof(T) == 4) return few_rows<Rounded, Single>(j, c, b, col);
  few_rows<Plain, Single>(j, c, b, col);
}

// All rows of c (M, NR) += a b over n steps of a panel of b that begin at step k.
template <class Mode>
void thin_tiles(const Thin* j, float* c, const float* b, int64_t k, int64_t n) {
  int64_t M = j->args->M, all = steps(j->args, j->args->K);
  if (j->height == 1) return tile<Mode, 1, 1>(c, NR, c, NR, j->a + k, b, n);
  if (j->height == 4) return tile<Mode, 4, 4>(c, NR, c, NR, j->a + k * 4, b, n);
  for (int64_t row = 0; row < M; row += MR, c += MR * NR)
    tile_of<Mode>(smaller(MR, M - row), c, NR, c, NR, j->a + row * all + k * MR, b, n);
}

template <class Mode>
void thin_panel(const Thin* j, float* c, int64_t col) {
  const MatmulArgs* m = j->args;
  int64_t all = steps(m, m->K), each = pairs(m) ? 2 : 1;
  if (j->b) return thin_tiles<Mode>(j, c, j->b + col * all, 0, all);
  alignas(64) float piece[kPiece * NR];
  for (int64_t k = 0; k < all; k += kPiece) {
    pack_b(m, piece, j->batch, col / NR, 1, k * each, smaller(kPiece * each, m->K - k * each));
    thin_tiles<Mode>(j, c, piece, k, smaller(kPiece, all - k));
  }
}

template <class T>
void thin_columns(const Thin* j, int64_t col) {
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

void thin_task(void* p, int64_t i) {
  auto* j = static_cast<const Thin*>(p);
  int64_t col = i * j->width;
  j->args->out.dtype == DType::f32 ? thin_columns<float>(j, col) : thin_columns<uint16_t>(j, col);
}

// A panel of few rows holds no more than them: beside the weights all of it stays in the first-level cache.
void thin_product(Context* ctx, const MatmulArgs* m, int64_t batch) {
  auto* a = static_cast<float*>(ctx->workspace);
  int64_t height = m->M == 1 ? 1 : m->M <= 4 ? 4 : MR;
  if (height == 1)
    pack_a<1>(m, a, batch, 0, 1, 0, m->K);
  else if (height == 4)
    pack_a<4>(m, a, batch, 0, 1, 0, m->K);
  else
    pack_a(m, a, batch, 0, ceil_div(m->M, MR), 0, m->K);
  Thin j{m, batch, a, static_cast<const float*>(m->b.packed), height, thin_width(m, ctx->threads)};
  ctx->parallel_for(ctx, ceil_div(m->N, j.width), thin_task, &j);
}

}  // namespace
}  // namespace gristmill::GM_ISA
