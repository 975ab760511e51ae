// Zeroes elements by a mask that is a pure function of (seed, stream, index). Srivastava et al., 2014.
#include "core/rng.h"
#include "cpu/rows.h"

namespace gristmill::GM_ISA {

int64_t dropout_workspace(const DropoutArgs*, int32_t) { return 0; }

Status dropout(Context* ctx, const DropoutArgs* a) {
  if (a->out.dtype != a->x.dtype || !unit_stride(0, a->n, {a->out, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(ctx, (a->n + W - 1) / W, 256, [=](int64_t first, int64_t last) {
      float keep = 1.0f / (1.0f - a->p);
      for (int64_t i = first; i < last; ++i) {
        float factor[W];
        for (int j = 0; j < 4; ++j) {
          Philox4 r = philox(a->key[0], a->key[1], static_cast<uint64_t>(4 * i + j));
          for (int l = 0; l < 4; ++l) factor[4 * j + l] = uniform_from(r.x[l]) >= a->p ? keep : 0.0f;
        }
        int64_t n = a->n - i * W;
        put(static_cast<T*>(a->out.data) + i * W, vload_n(static_cast<const T*>(a->x.data) + i * W, n) * vload(factor),
            n, a->out.accumulate);
      }
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
