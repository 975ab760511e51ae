// One op on up to two operands with any strides (0 broadcasts); copy converts between element types.
#include "cpu/rows.h"

namespace gristmill::GM_ISA {
namespace {

GM_INLINE vf apply(Elementwise op, vf a, vf b) {
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
    case Elementwise::square: return a * a;
  }
  return a;
}

// f(constant op): each op has loops of its own.
template <class F>
void with_op(Elementwise op, const F& f) {
  switch (op) {
#define GM_CASE(name) \
  case Elementwise::name: return f(std::integral_constant<Elementwise, Elementwise::name>{});
    GM_CASE(copy)
    GM_CASE(add)
    GM_CASE(sub)
    GM_CASE(mul)
    GM_CASE(div)
    GM_CASE(maximum)
    GM_CASE(neg)
    GM_CASE(exp)
    GM_CASE(log)
    GM_CASE(sqrt)
    GM_CASE(square)
#undef GM_CASE
  }
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

// Neighbouring elements of one type, b neighbouring too or one number.
template <class T>
void run_neighbours(const ElementwiseArgs* e, Line at, int64_t first, int64_t n) {
  T* out = static_cast<T*>(e->out.data) + at.out + first;
  const T* a = static_cast<const T*>(e->a.data) + at.a + first;
  const T* b = e->b.data ? static_cast<const T*>(e->b.data) + at.b + first * e->b.strides[3] : nullptr;
  vf number = vset(e->alpha);
  if (b && e->b.strides[3] == 0) {
    float t[W];
    vstore(t, vload_n(b, 1));
    number = vset(t[0]), b = nullptr;
  }
  bool add = e->out.accumulate;
  with_op(static_cast<Elementwise>(e->op), [=](auto op) {
    if (b)
      each_vector(n, [=](int64_t j, auto w) { put(out + j, apply(op, vload_n(a + j, w), vload_n(b + j, w)), w, add); });
    else
      each_vector(n, [=](int64_t j, auto w) { put(out + j, apply(op, vload_n(a + j, w), number), w, add); });
  });
}

template <class O, class A>
void convert(const ElementwiseArgs* e, Line at, int64_t first, int64_t n) {
  O* out = static_cast<O*>(e->out.data) + at.out + first;
  const A* a = static_cast<const A*>(e->a.data) + at.a + first;
  bool add = e->out.accumulate;
  each_vector(n, [=](int64_t j, auto w) { put(out + j, vload_n(a + j, w), w, add); });
}

using Runner = void (*)(const ElementwiseArgs*, Line, int64_t first, int64_t n);

// The loop for the innermost dimension, where it has one of its own.
Runner runner(const ElementwiseArgs* e) {
  bool one = e->n3 == 1;
  if (!floating(e->out) || !floating(e->a) || (!one && (e->out.strides[3] != 1 || e->a.strides[3] != 1)))
    return nullptr;
  if (e->b.data && !one && e->b.strides[3] != 1 && e->b.strides[3] != 0) return nullptr;
  DType t = e->out.dtype;
  if (e->a.dtype == t && (!e->b.data || e->b.dtype == t))
    return t == DType::f32 ? run_neighbours<float> : run_neighbours<uint16_t>;
  if (static_cast<Elementwise>(e->op) != Elementwise::copy) return nullptr;
  return t == DType::f32 ? convert<float, uint16_t> : convert<uint16_t, float>;
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
  Runner quick = runner(e);
  int64_t lines = e->n0 * e->n1 * e->n2, pieces = (e->n3 + kTask - 1) / kTask;
  int64_t chunk = e->n3 >= kTask ? 1 : kTask / (e->n3 > 0 ? e->n3 : 1);
  for_rows(ctx, lines * pieces, chunk, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t line = i / pieces, first = i % pieces * kTask;
      int64_t i2 = line % e->n2, i1 = line / e->n2 % e->n1, i0 = line / e->n2 / e->n1;
      Line at{start(e->out, i0, i1, i2), start(e->a, i0, i1, i2), start(e->b, i0, i1, i2)};
      int64_t last = first + kTask < e->n3 ? first + kTask : e->n3;
      quick ? quick(e, at, first, last - first) : run(e, at, first, last);
    }
  });
  return Status::ok;
}

}  // namespace gristmill::GM_ISA
