// One op on up to two operands with any strides (0 broadcasts); copy converts between element types.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

vf apply(Elementwise op, vf a, vf b) {
  switch (op) {
    case Elementwise::copy: return a;
    case Elementwise::add: return a + b;
    case Elementwise::sub: return a - b;
    case Elementwise::mul: return a * b;
    case Elementwise::div: return a / b;
    case Elementwise::maximum: return vmaximum(a, b);
    case Elementwise::neg: return -a;
    case Elementwise::exp: return vexp(a);
    case Elementwise::log: return vlog(a);
    case Elementwise::sqrt: return vsqrt(a);
    case Elementwise::tanh: return vtanh(a);
    case Elementwise::sigmoid: return vsigmoid(a);
    case Elementwise::relu: return vmax(vzero(), a);  // lets NaN through
    case Elementwise::square: return a * a;
  }
  return a;
}

template <class T>
vf fetch(const T* p, int64_t stride, int64_t n) {
  if (stride == 1) return vload_n(p, n);
  T t[W] = {};
  for (int64_t l = 0; l < (n < W ? n : W); ++l) t[l] = p[l * stride];
  return vload(t);
}

vf fetch(const View& v, int64_t index, int64_t stride, int64_t n) {
  if (v.dtype == DType::f32) return fetch(static_cast<const float*>(v.data) + index, stride, n);
  return fetch(static_cast<const uint16_t*>(v.data) + index, stride, n);
}

template <class T>
void place(T* p, int64_t stride, vf v, int64_t n, bool add) {
  if (stride == 1) return put(p, v, n, add);
  T t[W];
  vstore(t, add ? fetch(p, stride, n) + v : v);
  for (int64_t l = 0; l < (n < W ? n : W); ++l) p[l * stride] = t[l];
}

int64_t integer(const View& v, int64_t i) {
  switch (v.dtype) {
    case DType::i32: return static_cast<const int32_t*>(v.data)[i];
    case DType::i64: return static_cast<const int64_t*>(v.data)[i];
    case DType::u8: return static_cast<const uint8_t*>(v.data)[i];
    default: return 0;
  }
}

bool floating(const View& v) { return v.dtype == DType::f32 || v.dtype == DType::bf16; }

// Copies that start or end in integers, one element at a time; floats are cut towards zero.
void copy_one(const View& out, int64_t o, const View& a, int64_t i) {
  float f = 0.0f;
  if (floating(a))
    f = a.dtype == DType::f32 ? static_cast<const float*>(a.data)[i]
                              : bf16_to_f32(static_cast<const uint16_t*>(a.data)[i]);
  int64_t n = floating(a) ? static_cast<int64_t>(f) : integer(a, i);
  switch (out.dtype) {
    case DType::f32: static_cast<float*>(out.data)[o] = floating(a) ? f : static_cast<float>(n); return;
    case DType::bf16:
      static_cast<uint16_t*>(out.data)[o] = f32_to_bf16(floating(a) ? f : static_cast<float>(n));
      return;
    case DType::i32: static_cast<int32_t*>(out.data)[o] = static_cast<int32_t>(n); return;
    case DType::i64: static_cast<int64_t*>(out.data)[o] = n; return;
    case DType::u8: static_cast<uint8_t*>(out.data)[o] = static_cast<uint8_t>(n); return;
  }
}

struct Line {  // the innermost dimension of one (i0, i1, i2)
  int64_t out, a, b;
};

void run(const ElementwiseArgs* e, Line at, int64_t first, int64_t last) {
  int64_t so = e->out.strides[3], sa = e->a.strides[3], sb = e->b.strides[3];
  if (!floating(e->out) || !floating(e->a)) {
    for (int64_t j = first; j < last; ++j) copy_one(e->out, at.out + j * so, e->a, at.a + j * sa);
    return;
  }
  vf number = vset(e->alpha);
  Elementwise op = static_cast<Elementwise>(e->op);
  for (int64_t j = first; j < last; j += W) {
    int64_t n = last - j;
    vf b = e->b.data ? fetch(e->b, at.b + j * sb, sb, n) : number;
    vf y = apply(op, fetch(e->a, at.a + j * sa, sa, n), b);
    if (e->out.dtype == DType::f32)
      place(static_cast<float*>(e->out.data) + at.out + j * so, so, y, n, e->out.accumulate);
    else
      place(static_cast<uint16_t*>(e->out.data) + at.out + j * so, so, y, n, e->out.accumulate);
  }
}

int64_t start(const View& v, int64_t i0, int64_t i1, int64_t i2) {
  return i0 * v.strides[0] + i1 * v.strides[1] + i2 * v.strides[2];
}

}  // namespace

int64_t elementwise_workspace(const ElementwiseArgs*, int32_t) { return 0; }

Status elementwise(Context* ctx, const ElementwiseArgs* e) {
  bool floats = floating(e->out) && floating(e->a) && (!e->b.data || floating(e->b));
  bool plain_copy = static_cast<Elementwise>(e->op) == Elementwise::copy && !e->out.accumulate;
  if (!floats && !plain_copy) return Status::unsupported;
  constexpr int64_t kPiece = 16384;
  int64_t lines = e->n0 * e->n1 * e->n2, pieces = (e->n3 + kPiece - 1) / kPiece;
  int64_t chunk = e->n3 >= kPiece ? 1 : kPiece / (e->n3 > 0 ? e->n3 : 1);
  for_rows(ctx, lines * pieces, chunk, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t line = i / pieces, first = i % pieces * kPiece;
      int64_t i2 = line % e->n2, i1 = line / e->n2 % e->n1, i0 = line / e->n2 / e->n1;
      Line at{start(e->out, i0, i1, i2), start(e->a, i0, i1, i2), start(e->b, i0, i1, i2)};
      run(e, at, first, first + kPiece < e->n3 ? first + kPiece : e->n3);
    }
  });
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
