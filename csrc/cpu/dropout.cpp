// Zeroes elements by a mask that is a pure function of (seed, stream, index). Srivastava et al., 2014.
#include "cpu/blocks.h"
#include "cpu/draws.h"

namespace gristmill::GM_ISA {
namespace {

// Sixteen bits decide: the share is a multiple of 2^-16, and one word serves two elements.
struct Share {
  uint32_t dropped;  // of 65536
  float keep;        // the expectation stays exact: over the share that is really kept
  explicit Share(float p) {
    double steps = static_cast<double>(p) * 65536.0 + 0.5;
    dropped = steps < 65535.0 ? static_cast<uint32_t>(steps) : 65535u;
    keep = 65536.0f / static_cast<float>(65536u - dropped);
  }
};

// The 64 elements whose halves are the lower ones of the words, and the 64 that follow; whole registers where n reaches
// to the end.
template <class T>
inline void apply(T* out, const T* x, Draw& d, vu last_dropped, vf keep, int64_t n, bool add) {
  side_by_side(d);
#pragma GCC unroll 8
  for (int j = 0; j < 8; j += kVectors<T>) {
    if (n <= j * W) return;
    Vectors<T> b = bload<T>(x + j * W, n - j * W);
#pragma GCC unroll 2
    for (int k = 0; k < kVectors<T>; ++k) {
      vu w = d.w[(j + k) % 4], half = j < 4 ? w & vuset(0xffff) : vshr<16>(w);
      b.v[k] = vfloat(vbits(b.v[k] * keep) & vsar<31>(last_dropped - half));  // all ones where half > last_dropped
    }
    bput<T>(out + j * W, b, n - j * W, add);
  }
}

}  // namespace

int64_t dropout_workspace(const DropoutArgs*, int32_t) { return 0; }

Status dropout(Context* ctx, const DropoutArgs* a) {
  if (a->out.dtype != a->x.dtype || !unit_stride(0, a->n, {a->out, a->x})) return Status::unsupported;
  return by_type(a->x.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int64_t kDrawn = 2 * kDraw, kPair = 2 * kDrawn;  // elements of one draw, and of two
    for_rows(ctx, (a->n + kPair - 1) / kPair, 64, [=](int64_t first, int64_t last) {
      Keys keys(a->key, first * kPair / 8);
      Share share(a->p);
      vu last_dropped = vuset(share.dropped - 1);
      vf keep = vset(share.keep);
      T* out = static_cast<T*>(a->out.data);
      const T* x = static_cast<const T*>(a->x.data);
      for (int64_t i = first * kPair; i < last * kPair; i += kPair) {
        Draw d[2];
        draw(keys, static_cast<uint64_t>(i / kDrawn), d);
        if (a->n - i >= kPair && !a->out.accumulate) {
          apply(out + i, x + i, d[0], last_dropped, keep, kDrawn, false);
          apply(out + i + kDrawn, x + i + kDrawn, d[1], last_dropped, keep, kDrawn, false);
        } else {
          apply(out + i, x + i, d[0], last_dropped, keep, a->n - i, a->out.accumulate);
          apply(out + i + kDrawn, x + i + kDrawn, d[1], last_dropped, keep, a->n - i - kDrawn, a->out.accumulate);
        }
      }
    });
    return Status::ok;
  });
}

}  // namespace gristmill::GM_ISA
