// Head and loss together: a few rows of logits exist at a time. They are computed kLossColumns at a time, each piece
// followed by its partial log-sum-exp, and turned into gradients piece by piece too, so that a product finds in cache
// what was just made. Hsu et al., "Liger Kernel", 2024.
#include "cpu/softmax.h"

namespace gristmill::GM_ISA {
namespace {

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

MatmulArgs args_of(View out, View a, View b, int64_t M, int64_t N, int64_t K, DType compute) {
  MatmulArgs m{};
  m.out = out, m.a = a, m.b = b;
  m.batch = 1, m.M = M, m.N = N, m.K = K, m.compute = compute;
  return m;
}

// (rows, cols) with these strides, as the contract's (1, rows, cols).
View matrix(void* data, DType dtype, int64_t s0, int64_t s1, int32_t accumulate = 0) {
  View v{};
  v.data = data, v.dtype = dtype, v.strides[1] = s0, v.strides[2] = s1, v.accumulate = accumulate;
  return v;
}

void* offset(const View& v, int64_t row) {
  return static_cast<char*>(v.data) + row * v.strides[0] * item_size(v.dtype);
}

// Rows of a chunk: each packs the whole weight twice for its products, so many; their logits are most of the memory, so
// few: with a vocabulary of 50257 three chunks of 1024 rows hold an eighth of what PyTorch does.
int64_t chunk_rows(const LinearCrossEntropyArgs* a) {
  constexpr int64_t kTile = 12, kLogits = 1032 * 4096, kFewest = 348, kMost = 1032;
  int64_t most = smaller(kMost, larger(kFewest, kLogits / larger(1, a->V))),
          chunks = larger(1, (a->rows + most - 1) / most);
  return smaller(a->rows, round_up((a->rows + chunks - 1) / chunks, kTile));
}

// From row to row of a piece of logits: not a multiple of a page.
int64_t stride_of(int64_t width) { return round_up(width, 16) + 16; }

// What a chunk of rows needs of the workspace. A piece is (rows, stride): kLossColumns of the logits, or what is left.
struct Plan {
  int64_t rows, pieces;
  float *logits, *own, *lse, *sums;  // the pieces or one; (rows): the target's; (rows); (pieces, rows)
  LogSum* parts;                     // (pieces, rows)
  uint16_t* short_gradient;          // a piece, where products are computed in bfloat16
  float* dx;                         // (rows, cols), where dx is bfloat16: rounded once, after all pieces
  int64_t bytes;
  bool gradient;
};

Plan plan_of(const LinearCrossEntropyArgs* a, void* workspace) {
  Plan p{};
  p.rows = chunk_rows(a), p.pieces = (a->V + kLossColumns - 1) / kLossColumns;
  int64_t widest = stride_of(smaller(a->V, kLossColumns)), last = a->V - (p.pieces - 1) * kLossColumns;
  p.gradient = a->dx.data || a->dweight.data;
  auto take = [&](auto*& array, int64_t count) {
    array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(static_cast<char*>(workspace) + p.bytes);
    p.bytes += (count * static_cast<int64_t>(sizeof(*array)) + 63) / 64 * 64;
  };
  take(p.logits, p.rows * (p.gradient ? (p.pieces - 1) * widest + stride_of(last) : widest));
  take(p.own, p.rows);
  take(p.lse, p.rows);
  take(p.sums, p.pieces * p.rows);
  take(p.parts, p.pieces * p.rows);
  take(p.short_gradient, p.gradient && a->compute == DType::bf16 ? p.rows * widest : 0);
  take(p.dx, a->dx.data && a->dx.dtype == DType::bf16 ? p.rows * a->cols : 0);
  return p;
}

// Rows r0 .. r0 + n of x and columns c0 .. c0 + width of their logits.
struct Block {
  const LinearCrossEntropyArgs* a;
  const Plan* p;
  int64_t r0, n, c0, width;

  int64_t piece() const { return c0 / kLossColumns; }
  int64_t stride() const { return stride_of(width); }
  float* logits() const { return p->logits + (p->gradient ? piece() : 0) * p->rows * stride_of(kLossColumns); }
  int32_t target(int64_t i) const {
    return static_cast<const int32_t*>(a->targets.data)[(r0 + i) * a->targets.strides[0]];
  }
};

View rows_of(const View& v, int64_t row) { return matrix(offset(v, row), v.dtype, v.strides[0], v.strides[1]); }
View transposed(View v) {
  int64_t s = v.strides[1];
  v.strides[1] = v.strides[2], v.strides[2] = s;
  return v;
}

// Half a piece is packed at a time: half the scratch.
constexpr int64_t kPacked = kLossColumns / 2;
MatmulArgs logits_product(const Block& b, int64_t from) {
  View out = matrix(b.logits() + from, DType::f32, b.stride(), 1);
  return args_of(out, rows_of(b.a->x, b.r0), transposed(rows_of(b.a->weight, b.c0 + from)), b.n,
                 smaller(kPacked, b.width - from), b.a->cols, b.a->compute);
}

View gradient_view(const Block& b) {
  if (b.a->compute == DType::bf16) return matrix(b.p->short_gradient, DType::bf16, b.stride(), 1);
  return matrix(b.logits(), DType::f32, b.stride(), 1);
}

MatmulArgs dx_product(const Block& b) {
  View out = rows_of(b.a->dx, b.r0);
  out.accumulate = b.c0 > 0 || b.a->dx.accumulate;
  if (b.a->dx.dtype == DType::bf16) out = matrix(b.p->dx, DType::f32, b.a->cols, 1, b.c0 > 0);
  return args_of(out, gradient_view(b), rows_of(b.a->weight, b.c0), b.n, b.a->cols, b.width, b.a->compute);
}

MatmulArgs dweight_product(const Block& b) {
  View out = rows_of(b.a->dweight, b.c0);
  out.accumulate = b.r0 > 0 || b.a->dweight.accumulate;
  return args_of(out, transposed(gradient_view(b)), rows_of(b.a->x, b.r0), b.width, b.a->cols, b.n, b.a->compute);
}

// Of the largest product, or of the last ones, which are smaller.
int64_t product_bytes(const LinearCrossEntropyArgs* a, const Plan* p, int32_t threads) {
  int64_t most = 0;
  for (int64_t n : {p->rows, a->rows % larger(p->rows, 1)})
    for (int64_t width : {smaller(a->V, kLossColumns), a->V % kLossColumns}) {
      Block b{a, p, 0, n, 0, width};
      MatmulArgs logits = logits_product(b, 0), dx = dx_product(b), dweight = dweight_product(b);
      most = larger(most, matmul_workspace(&logits, threads));
      if (a->dx.data) most = larger(most, matmul_workspace(&dx, threads));
      if (a->dweight.data) most = larger(most, matmul_workspace(&dweight, threads));
    }
  return most;
}

// The logits of a block and what the losses need of them.
Status forward_block(Context* ctx, const Block& b) {
  for (int64_t from = 0; from < b.width; from += kPacked) {
    MatmulArgs product = logits_product(b, from);
    if (Status e = matmul(ctx, &product); e != Status::ok) return e;
  }
  for_rows(ctx, b.n, 4, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float* x = b.logits() + i * b.stride();
      b.p->parts[b.piece() * b.p->rows + i] = log_sum_of(x, b.width);
      if (b.a->smoothing > 0.0f) b.p->sums[b.piece() * b.p->rows + i] = sum_of(x, b.width);
      int64_t own = b.target(i) - b.c0;
      if (own >= 0 && own < b.width) b.p->own[i] = x[own];
    }
  });
  return Status::ok;
}

// Losses of rows r0 .. r0 + n, from their parts in order.
void losses_of(const Block& b) {
  const Plan* p = b.p;
  for (int64_t i = 0; i < b.n; ++i) {
    LogSum all = p->parts[i];
    float sum = p->sums[i], loss = 0.0f;
    for (int64_t k = 1; k < p->pieces; ++k) {
      all = joined(all, p->parts[k * p->rows + i]);
      if (b.a->smoothing > 0.0f) sum += p->sums[k * p->rows + i];
    }
    p->lse[i] = log_sum_exp(all);
    if (b.target(i) >= 0) loss = loss_of(p->lse[i], p->own[i], sum, b.a->smoothing, b.a->V);
    float* out = static_cast<float*>(b.a->losses.data) + (b.r0 + i) * b.a->losses.strides[0];
    *out = b.a->losses.accumulate ? *out + loss : loss;
  }
}

Status backward_block(Context* ctx, const Block& b) {
  for_rows(ctx, b.n, 4, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      Target t = target_of(b.target(i), b.p->lse[i], b.a->scale, b.a->smoothing, b.a->V);
      float* x = b.logits() + i * b.stride();
      if (b.a->compute == DType::bf16)
        gradient_of(b.p->short_gradient + i * b.stride(), x, t, b.c0, b.width, false);
      else
        gradient_of(x, x, t, b.c0, b.width, false);
    }
  });
  if (b.a->dweight.data) {
    MatmulArgs product = dweight_product(b);
    if (Status e = matmul(ctx, &product); e != Status::ok) return e;
  }
  if (!b.a->dx.data) return Status::ok;
  MatmulArgs product = dx_product(b);
  return matmul(ctx, &product);
}

void round_dx(Context* ctx, const Block& b) {
  for_rows(ctx, b.n, 16, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float* from = b.p->dx + i * b.a->cols;
      uint16_t* to = row_of<uint16_t>(b.a->dx, b.r0 + i);
      each_vector(b.a->cols, [&](int64_t j, auto w) { put(to + j, vload_n(from + j, w), w, b.a->dx.accumulate); });
    }
  });
}

// The next rows' piece of logits follows this one's gradients: it takes their place, and its weight is still in cache.
Status run(Context* ctx, const LinearCrossEntropyArgs* a, const Plan* p) {
  auto block = [=](int64_t r0, int64_t c0) {
    return Block{a, p, r0, smaller(p->rows, a->rows - r0), c0, smaller(kLossColumns, a->V - c0)};
  };
  for (int64_t c0 = 0; c0 < a->V; c0 += kLossColumns)
    if (Status s = forward_block(ctx, block(0, c0)); s != Status::ok) return s;
  for (int64_t r0 = 0, next = p->rows; r0 < a->rows; r0 = next, next += p->rows) {
    losses_of(block(r0, 0));
    for (int64_t c0 = 0; c0 < a->V; c0 += kLossColumns) {
      Status s = p->gradient ? backward_block(ctx, block(r0, c0)) : Status::ok;
      if (s == Status::ok && next < a->rows) s = forward_block(ctx, block(next, c0));
      if (s != Status::ok) return s;
    }
    if (a->dx.data && a->dx.dtype == DType::bf16) round_dx(ctx, block(r0, 0));
  }
  return Status::ok;
}

}  // namespace

int64_t linear_cross_entropy_workspace(const LinearCrossEntropyArgs* a, int32_t threads) {
  Plan p = plan_of(a, nullptr);
  return p.bytes + product_bytes(a, &p, threads);
}

Status linear_cross_entropy(Context* ctx, const LinearCrossEntropyArgs* a) {
  if (!unit_stride(1, a->cols, {a->dx, a->dweight})) return Status::unsupported;
  if (ctx->workspace_bytes < linear_cross_entropy_workspace(a, ctx->threads)) return Status::workspace;
  Plan p = plan_of(a, ctx->workspace);
  Context sub = *ctx;
  sub.workspace = static_cast<char*>(ctx->workspace) + p.bytes;
  sub.workspace_bytes = ctx->workspace_bytes - p.bytes;
  if (a->rows == 0 && a->dweight.data) {  // a sum over nothing is zero, and a product over nothing says so
    MatmulArgs product = dweight_product(Block{a, &p, 0, 0, 0, a->V});
    return matmul(&sub, &product);
  }
  return a->rows == 0 ? Status::ok : run(&sub, a, &p);
}

}  // namespace gristmill::GM_ISA
