// Head and loss together: kLossRows rows of logits exist at a time, and are turned into their gradient in place.
// Hsu et al., "Liger Kernel", 2024.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

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

struct Steps {
  MatmulArgs logits, dx, dweight;
};

// The three products of the chunk that starts at row r0.
Steps steps(const LinearCrossEntropyArgs* a, float* logits, int64_t r0, int64_t n) {
  const View &x = a->x, &w = a->weight;
  View l = matrix(logits, DType::f32, a->V, 1), lt = matrix(logits, DType::f32, 1, a->V);
  View xs = matrix(offset(x, r0), x.dtype, x.strides[0], x.strides[1]);
  Steps s{};
  s.logits = args_of(l, xs, matrix(w.data, w.dtype, w.strides[1], w.strides[0]), n, a->V, a->cols, a->compute);
  if (a->dx.data) {
    View dx = matrix(offset(a->dx, r0), a->dx.dtype, a->dx.strides[0], a->dx.strides[1], a->dx.accumulate);
    s.dx = args_of(dx, l, matrix(w.data, w.dtype, w.strides[0], w.strides[1]), n, a->cols, a->V, a->compute);
  }
  if (a->dweight.data) {
    View dw = matrix(a->dweight.data, DType::f32, a->dweight.strides[0], a->dweight.strides[1],
                     r0 > 0 || a->dweight.accumulate);
    s.dweight = args_of(dw, lt, xs, a->V, a->cols, n, a->compute);
  }
  return s;
}

int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

int64_t own_bytes(const LinearCrossEntropyArgs* a) {
  return ((smaller(kLossRows, a->rows) * (a->V + 1) * 4) + 127) / 64 * 64;
}

}  // namespace

int64_t linear_cross_entropy_workspace(const LinearCrossEntropyArgs* a, int32_t threads) {
  Steps s = steps(a, nullptr, 0, smaller(kLossRows, a->rows));
  int64_t most = matmul_workspace(&s.logits, threads);
  if (a->dx.data) most = larger(most, matmul_workspace(&s.dx, threads));
  if (a->dweight.data) most = larger(most, matmul_workspace(&s.dweight, threads));
  return own_bytes(a) + most;
}

Status linear_cross_entropy(Context* ctx, const LinearCrossEntropyArgs* a) {
  if (ctx->workspace_bytes < linear_cross_entropy_workspace(a, ctx->threads)) return Status::workspace;
  float* logits = static_cast<float*>(ctx->workspace);
  float* lse = logits + smaller(kLossRows, a->rows) * a->V;
  Context sub = *ctx;
  sub.workspace = static_cast<char*>(ctx->workspace) + own_bytes(a);
  sub.workspace_bytes = ctx->workspace_bytes - own_bytes(a);
  if (a->rows == 0 && a->dweight.data) {  // a sum over nothing is zero, and a product over nothing says so
    Steps s = steps(a, logits, 0, 0);
    return matmul(&sub, &s.dweight);
  }
  float scale = a->scale;
  for (int64_t r0 = 0; r0 < a->rows; r0 += kLossRows) {
    int64_t n = smaller(kLossRows, a->rows - r0);
    Steps s = steps(a, logits, r0, n);
    if (Status e = matmul(&sub, &s.logits); e != Status::ok) return e;
    View chunk{}, kept{}, losses = a->losses, targets = a->targets, each{};
    chunk.data = logits, chunk.strides[0] = a->V, chunk.strides[1] = 1;
    kept.data = lse, kept.strides[0] = 1;
    losses.data = offset(a->losses, r0), targets.data = offset(a->targets, r0);
    each.data = &scale;
    CrossEntropyForwardArgs f{losses, kept, chunk, targets, n, a->V, a->smoothing};
    if (Status e = cross_entropy_forward(&sub, &f); e != Status::ok) return e;
    if (!a->dx.data && !a->dweight.data) continue;
    CrossEntropyBackwardArgs b{chunk, each, chunk, kept, targets, n, a->V, a->smoothing};
    if (Status e = cross_entropy_backward(&sub, &b); e != Status::ok) return e;
    if (a->dx.data)
      if (Status e = matmul(&sub, &s.dx); e != Status::ok) return e;
    if (a->dweight.data)
      if (Status e = matmul(&sub, &s.dweight); e != Status::ok) return e;
  }
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
