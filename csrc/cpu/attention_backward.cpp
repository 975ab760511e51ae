// Attention over blocks of keys with a running softmax; no (T, S) matrix exists. Dao, "FlashAttention-2", 2023.
// A query's bits depend on its own keys alone: blocks start at key 0, and a key it may not see counts exactly nothing.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t KB = 64, QB = kAttentionQueries, kMaxD = 256;
#if defined(__AVX512F__)
constexpr int kRows = 4, kVectors = 4;
#else
constexpr int kRows = 2, kVectors = 2;
#endif

template <int R, int V>
void small_tile(float* c, int64_t ldc, const float* a, int64_t ar, int64_t ak, const float* b, int64_t ldb, int64_t k) {
  vf acc[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) acc[r][v] = vload(c + r * ldc + v * W);
  for (int64_t i = 0; i < k; ++i) {
    vf row[V];
    for (int v = 0; v < V; ++v) row[v] = vload(b + i * ldb + v * W);
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) acc[r][v] = vfma(vset(a[r * ar + i * ak]), row[v], acc[r][v]);
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) vstore(c + r * ldc + v * W, acc[r][v]);
}

// c (m, n) += a (m, k) b (k, n), n a multiple of 16; each element one chain over k.
void product(float* c, int64_t ldc, const float* a, int64_t ar, int64_t ak, const float* b, int64_t ldb, int64_t m,
             int64_t n, int64_t k) {
  for (int64_t j = 0; j < n;) {
    bool wide = n - j >= kVectors * W;
    int64_t i = 0;
    for (; i + kRows <= m; i += kRows)
      wide ? small_tile<kRows, kVectors>(c + i * ldc + j, ldc, a + i * ar, ar, ak, b + j, ldb, k)
           : small_tile<kRows, 1>(c + i * ldc + j, ldc, a + i * ar, ar, ak, b + j, ldb, k);
    for (; i < m; ++i)
      wide ? small_tile<1, kVectors>(c + i * ldc + j, ldc, a + i * ar, ar, ak, b + j, ldb, k)
           : small_tile<1, 1>(c + i * ldc + j, ldc, a + i * ar, ar, ak, b + j, ldb, k);
    j += wide ? kVectors * W : W;
  }
}

struct Span {
  int64_t first, last;
};

// The same where row i takes only the part span(i) of k, whose ends never fall from row to row: what lies outside may
// be infinite, and 0 times that is NaN. Rows go together as far as they share k, so each element is the same chain.
template <class F>
void stairs(float* c, int64_t ldc, const float* a, int64_t ar, int64_t ak, const float* b, int64_t ldb, int64_t m,
            int64_t n, const F& span) {
  auto part = [=](int64_t row, int64_t rows, int64_t k0, int64_t k1) {
    if (k0 < k1) product(c + row * ldc, ldc, a + row * ar + k0 * ak, ar, ak, b + k0 * ldb, ldb, rows, n, k1 - k0);
  };
  for (int64_t i = 0; i < m; i += kRows) {
    int64_t rows = m - i < kRows ? m - i : kRows;
    Span shared{span(i + rows - 1).first, span(i).last};
    for (int64_t r = 0; r < rows; ++r) part(i + r, 1, span(i + r).first, shared.first);
    part(i, rows, shared.first, shared.last);
    for (int64_t r = 0; r < rows; ++r) part(i + r, 1, shared.last, span(i + r).last);
  }
}

int64_t padded(int64_t d) { return (d + W - 1) / W * W; }

template <class T>
const T* at(const View& v, int64_t b, int64_t t, int64_t h) {
  return static_cast<const T*>(v.data) + b * v.strides[0] + t * v.strides[1] + h * v.strides[2];
}

// Rows t0.. of one head as (n, padded D) float32; rows beyond `limit` are zero.
template <class T>
void gather(float* dst, const View& v, int64_t b, int64_t h, int64_t t0, int64_t n, int64_t limit, int64_t D) {
  int64_t P = padded(D);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t d = 0; d < P; d += W)
      vstore(dst + i * P + d, t0 + i < limit && d < D ? vload_n(at<T>(v, b, t0 + i, h) + d, D - d) : vzero());
}

void transpose(float* dst, const float* src, int64_t D) {  // (KB, padded D) -> (D, KB)
  int64_t P = padded(D);
  for (int64_t j = 0; j < KB; ++j)
    for (int64_t d = 0; d < D; ++d) dst[d * KB + j] = src[j * P + d];
}

template <class A>
int64_t first_position(const A* a, int64_t b) {
  return a->start.data ? static_cast<const int64_t*>(a->start.data)[b * a->start.strides[0]] : a->S - a->T;
}

// Number of keys query t sees.
template <class A>
int64_t seen(const A* a, int64_t b, int64_t t) {
  int64_t n = a->causal ? first_position(a, b) + t + 1 : a->S;
  return n < a->S ? n : a->S;
}

// How many keys of the block at k0 each of the queries t0.. sees; true when all see all of it.
template <class A>
bool visible_keys(const A* a, int64_t b, int64_t t0, int64_t n, int64_t k0, int64_t* visible) {
  for (int64_t i = 0; i < n; ++i) {
    int64_t v = seen(a, b, t0 + i) - k0;
    visible[i] = v < 0 ? 0 : v < KB ? v : KB;
  }
  return visible[0] == KB;
}

// All of one key/value head: heads of its group in order, key blocks, query blocks; dq gathers in workspace.
template <class T>
void backward_group(const AttentionBackwardArgs* a, int64_t b, int64_t g, float* dq_all) {
  int64_t D = a->D, P = padded(D), group = a->H / a->G;
  alignas(64) float q[QB * kMaxD], dy[QB * kMaxD], k[KB * kMaxD], kt[kMaxD * KB], v[KB * kMaxD], vt[kMaxD * KB];
  alignas(64) float dk[KB * kMaxD], dv[KB * kMaxD], s[QB * KB], ds[QB * KB];
  int64_t visible[QB], from[KB];  // keys of the block that query i sees; first query that sees key j
  for (int64_t i = 0; i < group * a->T * P; ++i) dq_all[i] = 0.0f;
  int64_t keys = a->T > 0 ? seen(a, b, a->T - 1) : 0;
  for (int64_t k0 = 0; k0 < a->S; k0 += KB) {
    gather<T>(k, a->k, b, g, k0, KB, keys, D);
    gather<T>(v, a->v, b, g, k0, KB, keys, D);
    transpose(kt, k, D);
    transpose(vt, v, D);
    for (int64_t i = 0; i < KB * P; ++i) dk[i] = dv[i] = 0.0f;
    for (int64_t h = g * group; h < (g + 1) * group; ++h)
      for (int64_t t0 = 0; t0 < a->T; t0 += QB) {
        int64_t n = a->T - t0 < QB ? a->T - t0 : QB;
        if (seen(a, b, t0 + n - 1) <= k0) continue;
        gather<T>(q, a->q, b, h, t0, n, a->T, D);
        gather<T>(dy, a->dout, b, h, t0, n, a->T, D);
        for (int64_t i = 0; i < n * KB; ++i) s[i] = ds[i] = 0.0f;
        product(s, KB, q, P, 1, kt, KB, n, KB, D);
        product(ds, KB, dy, P, 1, vt, KB, n, KB, D);
        for (int64_t i = 0; i < n; ++i) {
          const T* y = at<T>(a->out, b, t0 + i, h);
          vf dot = vzero();
          for (int64_t d = 0; d < D; d += W) dot = vfma(vload(dy + i * P + d), vload_n(y + d, D - d), dot);
          vf delta = vset(vsum(dot)), scale = vset(a->scale);
          const View& e = a->lse;
          vf lse =
              vset(static_cast<const float*>(e.data)[b * e.strides[0] + h * e.strides[1] + (t0 + i) * e.strides[2]]);
          for (int64_t j = 0; j < KB; j += W) {
            vf p = vexp(vload(s + i * KB + j) * scale - lse);
            vstore(s + i * KB + j, p);
            vstore(ds + i * KB + j, p * (vload(ds + i * KB + j) - delta) * scale);
          }
        }
        float* dq = dq_all + ((h - g * group) * a->T + t0) * P;
        if (visible_keys(a, b, t0, n, k0, visible)) {
          product(dq, P, ds, KB, 1, k, P, n, P, KB);
          product(dv, P, s, 1, KB, dy, P, KB, P, n);
          product(dk, P, ds, 1, KB, q, P, KB, P, n);
          continue;
        }
        for (int64_t j = 0, i = 0; j < KB; from[j++] = i)
          while (i < n && visible[i] <= j) ++i;
        auto queries = [&](int64_t j) { return Span{from[j], n}; };
        stairs(dq, P, ds, KB, 1, k, P, n, P, [&](int64_t i) { return Span{0, visible[i]}; });
        stairs(dv, P, s, 1, KB, dy, P, KB, P, queries);
        stairs(dk, P, ds, 1, KB, q, P, KB, P, queries);
      }
    for (int64_t j = 0; j < KB && k0 + j < a->S; ++j)
      for (int64_t d = 0; d < D; d += W) {
        put(const_cast<T*>(at<T>(a->dk, b, k0 + j, g)) + d, vload(dk + j * P + d), D - d, a->dk.accumulate);
        put(const_cast<T*>(at<T>(a->dv, b, k0 + j, g)) + d, vload(dv + j * P + d), D - d, a->dv.accumulate);
      }
  }
  for (int64_t h = 0; h < group; ++h)
    for (int64_t t = 0; t < a->T; ++t)
      for (int64_t d = 0; d < D; d += W)
        put(const_cast<T*>(at<T>(a->dq, b, t, g * group + h)) + d, vload(dq_all + (h * a->T + t) * P + d), D - d,
            a->dq.accumulate);
}

template <class A>
bool supported(const A* a, std::initializer_list<View> views) {
  for (const View& v : views)
    if (v.dtype != a->q.dtype) return false;
  return unit_stride(3, a->D, views) && a->D <= kMaxD && a->G > 0 && a->H % a->G == 0;
}

}  // namespace

int64_t attention_backward_workspace(const AttentionBackwardArgs* a, int32_t) {
  return a->B * a->H * a->T * padded(a->D) * 4;
}

Status attention_backward(Context* ctx, const AttentionBackwardArgs* a) {
  if (!supported(a, {a->dq, a->dk, a->dv, a->dout, a->q, a->k, a->v, a->out})) return Status::unsupported;
  if (ctx->workspace_bytes < attention_backward_workspace(a, 1)) return Status::workspace;
  float* dq = static_cast<float*>(ctx->workspace);
  return by_type(a->q.dtype, [&](auto type) {
    using T = decltype(type);
    int64_t each = a->H / a->G * a->T * padded(a->D);
    for_rows(ctx, a->B * a->G, 1, [=](int64_t i, int64_t) { backward_group<T>(a, i / a->G, i % a->G, dq + i * each); });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
