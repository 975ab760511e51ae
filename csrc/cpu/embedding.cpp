// Rows of a table by id; backward adds each row's gradient to its id's row, in order of the rows.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {

int64_t embedding_forward_workspace(const EmbeddingForwardArgs*, int32_t) { return 0; }
int64_t embedding_backward_workspace(const EmbeddingBackwardArgs*, int32_t) { return 0; }

Status embedding_forward(Context* ctx, const EmbeddingForwardArgs* a) {
  if (!unit_stride(1, a->cols, {a->out, a->weight})) return Status::unsupported;
  return by_type(a->weight.dtype, [&](auto in) {
    return by_type(a->out.dtype, [&](auto out) {
      using X = decltype(in);
      using Y = decltype(out);
      for_rows(ctx, a->rows, 64, [=](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          const X* x = row_of<const X>(a->weight, static_cast<const int32_t*>(a->ids.data)[i * a->ids.strides[0]]);
          Y* out = row_of<Y>(a->out, i);
          each_vector(a->cols, [=](int64_t j, auto w) { put(out + j, vload_n(x + j, w), w, a->out.accumulate); });
        }
      });
      return Status::ok;
    });
  });
}

// Blocks of columns are independent, so threads share no sum.
Status embedding_backward(Context* ctx, const EmbeddingBackwardArgs* a) {
  if (a->dweight.dtype != DType::f32 || !unit_stride(1, a->cols, {a->dweight, a->dout})) return Status::unsupported;
  return by_type(a->dout.dtype, [&](auto type) {
    using T = decltype(type);
    if (!a->dweight.accumulate)
      for_rows(ctx, a->V, 64, [=](int64_t first, int64_t last) {
        for (int64_t v = first; v < last; ++v) std::memset(row_of<float>(a->dweight, v), 0, a->cols * sizeof(float));
      });
    for_rows(ctx, a->cols, 8 * W, [=](int64_t first, int64_t last) {
      for (int64_t i = 0; i < a->rows; ++i) {
        float* into =
            row_of<float>(a->dweight, static_cast<const int32_t*>(a->ids.data)[i * a->ids.strides[0]]) + first;
        const T* from = row_of<const T>(a->dout, i) + first;
        each_vector(last - first, [=](int64_t j, auto w) { put(into + j, vload_n(from + j, w), w, true); });
      }
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
