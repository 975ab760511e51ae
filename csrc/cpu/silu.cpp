// silu(x) = x * sigmoid(x). Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units", 2017.
#include "core/math.h"
#include "cpu/table.h"

namespace gristmill::GM_ISA {
namespace {

constexpr int64_t kChunkRows = 16;

template <class T>
void forward_row(T* out, const T* x, int64_t cols, bool add) {
  for (int64_t j = 0; j < cols; j += W) {
    int64_t n = cols - j;
    vf v = vload_n(x + j, n), y = v * vsigmoid(v);
    vstore_n(out + j, add ? vload_n(out + j, n) + y : y, n);
  }
}

// d silu / dx = s + x s (1 - s) with s = sigmoid(x)
template <class T>
void backward_row(T* dx, const T* dout, const T* x, int64_t cols, bool add) {
  for (int64_t j = 0; j < cols; j += W) {
    int64_t n = cols - j;
    vf v = vload_n(x + j, n), s = vsigmoid(v);
    vf d = vload_n(dout + j, n) * vfma(v * s, vset(1.0f) - s, s);
    vstore_n(dx + j, add ? vload_n(dx + j, n) + d : d, n);
  }
}

template <class T>
T* row(const View& v, int64_t i) {
  return static_cast<T*>(v.data) + i * v.strides[0];
}

template <class T>
Status forward(Context* ctx, const SiluForwardArgs* a) {
  ctx->parallel_for(
      ctx, (a->rows + kChunkRows - 1) / kChunkRows,
      [](void* p, int64_t chunk) {
        auto* a = static_cast<const SiluForwardArgs*>(p);
        int64_t end = (chunk + 1) * kChunkRows < a->rows ? (chunk + 1) * kChunkRows : a->rows;
        for (int64_t i = chunk * kChunkRows; i < end; ++i)
          forward_row(row<T>(a->out, i), row<const T>(a->x, i), a->cols, a->out.accumulate);
      },
      const_cast<SiluForwardArgs*>(a));
  return Status::ok;
}

template <class T>
Status backward(Context* ctx, const SiluBackwardArgs* a) {
  ctx->parallel_for(
      ctx, (a->rows + kChunkRows - 1) / kChunkRows,
      [](void* p, int64_t chunk) {
        auto* a = static_cast<const SiluBackwardArgs*>(p);
        int64_t end = (chunk + 1) * kChunkRows < a->rows ? (chunk + 1) * kChunkRows : a->rows;
        for (int64_t i = chunk * kChunkRows; i < end; ++i)
          backward_row(row<T>(a->dx, i), row<const T>(a->dout, i), row<const T>(a->x, i), a->cols, a->dx.accumulate);
      },
      const_cast<SiluBackwardArgs*>(a));
  return Status::ok;
}

}  // namespace

int64_t silu_forward_workspace(const SiluForwardArgs*, int32_t) { return 0; }
int64_t silu_backward_workspace(const SiluBackwardArgs*, int32_t) { return 0; }

Status silu_forward(Context* ctx, const SiluForwardArgs* a) {
  if (a->out.dtype != a->x.dtype || a->out.strides[1] != 1 || a->x.strides[1] != 1) return Status::unsupported;
  if (a->x.dtype == DType::f32) return forward<float>(ctx, a);
  if (a->x.dtype == DType::bf16) return forward<uint16_t>(ctx, a);
  return Status::unsupported;
}

Status silu_backward(Context* ctx, const SiluBackwardArgs* a) {
  bool same = a->dx.dtype == a->x.dtype && a->dout.dtype == a->x.dtype;
  if (!same || a->dx.strides[1] != 1 || a->dout.strides[1] != 1 || a->x.strides[1] != 1) return Status::unsupported;
  if (a->x.dtype == DType::f32) return backward<float>(ctx, a);
  if (a->x.dtype == DType::bf16) return backward<uint16_t>(ctx, a);
  return Status::unsupported;
}

}  // namespace gristmill::GM_ISA
