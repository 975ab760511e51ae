#include "bind/array.h"

namespace gristmill {
namespace {

using Optional = std::optional<Array>;

// Shapes both passes share: q (B, T, H, D), k and v (B, S, G, D), start (B), keys enough for every query.
void check(const char* op, const Array& q, const Array& k, const Array& v, const Optional& start, bool causal) {
  expect(op, "q", q, {-1, -1, -1, -1}, {DType::f32, DType::bf16});
  expect(op, "k", k, {q.shape[0], -1, -1, q.shape[3]}, {q.dtype});
  expect(op, "v", v, k.shape, {q.dtype});
  int64_t H = q.shape[2], G = k.shape[2], T = q.shape[1], S = k.shape[1];
  auto fail = [&](const std::string& why) { throw py::value_error(std::string(op) + ": " + why); };
  if (G < 1 || H % G)
    fail(std::to_string(H) + " query heads are not a multiple of " + std::to_string(G) + " key heads");
  if (S < 1) fail("0 keys, at least 1 is needed");
  if (q.shape[3] < 1 || q.shape[3] > 256) fail("head dim " + std::to_string(q.shape[3]) + ", allowed is 1 to 256");
  if (start) {
    expect(op, "start", *start, {q.shape[0]}, {DType::i64}, false);
    for (int64_t i = 0; i < q.shape[0]; ++i) {
      int64_t s = reinterpret_cast<const int64_t*>(start->data)[i * start->strides[0]];
      if (s < 0 || s + T > S)
        fail("start " + std::to_string(s) + " + " + std::to_string(T) + " queries exceed " + std::to_string(S) +
             " keys");
    }
  } else if (causal && T > S) {
    fail(std::to_string(T) + " queries but " + std::to_string(S) + " keys");
  }
}

}  // namespace

GM_BIND(attention) {
  m.def(
      "attention_forward",
      [](const Array& out, const Optional& lse, const Array& q, const Array& k, const Array& v, const Optional& start,
         float scale, bool causal) {
        const char* op = "attention_forward";
        check(op, q, k, v, start, causal);
        expect(op, "out", out, q.shape, {q.dtype});
        int64_t B = q.shape[0], T = q.shape[1], H = q.shape[2];
        if (lse) expect(op, "lse", *lse, {B, H, T}, {DType::f32}, false);
        AttentionForwardArgs a{
            output(op, out), output(op, lse), view(q), view(k), view(v), view(start), B, T, k.shape[1], H,
            k.shape[2],      q.shape[3],      scale,   causal};
        GM_CALL(attention_forward, a);
      },
      py::arg("out"), py::arg("lse"), py::arg("q"), py::arg("k"), py::arg("v"), py::arg("start"), py::arg("scale"),
      py::arg("causal"));
  m.def(
      "attention_backward",
      [](const Array& dq, const Array& dk, const Array& dv, const Array& dout, const Array& q, const Array& k,
         const Array& v, const Array& out, const Array& lse, const Optional& start, float scale, bool causal) {
        const char* op = "attention_backward";
        check(op, q, k, v, start, causal);
        int64_t B = q.shape[0], T = q.shape[1], H = q.shape[2];
        for (auto [name, array] : {std::pair{"dq", &dq}, {"dout", &dout}, {"out", &out}})
          expect(op, name, *array, q.shape, {q.dtype});
        for (auto [name, array] : {std::pair{"dk", &dk}, {"dv", &dv}}) expect(op, name, *array, k.shape, {q.dtype});
        expect(op, "lse", lse, {B, H, T}, {DType::f32}, false);
        AttentionBackwardArgs a{
            output(op, dq), output(op, dk), output(op, dv), view(dout), view(q), view(k),    view(v),
            view(out),      view(lse),      view(start),    B,          T,       k.shape[1], H,
            k.shape[2],     q.shape[3],     scale,          causal};
        GM_CALL(attention_backward, a);
      },
      py::arg("dq"), py::arg("dk"), py::arg("dv"), py::arg("dout"), py::arg("q"), py::arg("k"), py::arg("v"),
      py::arg("out"), py::arg("lse"), py::arg("start"), py::arg("scale"), py::arg("causal"));
}

}  // namespace gristmill
