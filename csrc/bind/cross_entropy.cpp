#include "bind/array.h"

namespace gristmill {

GM_BIND(cross_entropy) {
  m.def(
      "cross_entropy_forward",
      [](const Array& losses, const std::optional<Array>& lse, const Array& logits, const Array& targets,
         float smoothing) {
        const char* op = "cross_entropy_forward";
        expect(op, "logits", logits, {-1, -1}, {DType::f32, DType::bf16});
        int64_t rows = logits.shape[0], V = logits.shape[1];
        expect_smoothing(op, smoothing);
        expect(op, "targets", targets, {rows}, {DType::i32}, false);
        expect(op, "losses", losses, {rows}, {DType::f32}, false);
        if (lse) expect(op, "lse", *lse, {rows}, {DType::f32}, false);
        expect_ids(op, "targets", targets, V, true);
        CrossEntropyForwardArgs a{output(op, losses), output(op, lse), view(logits), view(targets), rows, V, smoothing};
        GM_CALL(cross_entropy_forward, a);
      },
      py::arg("losses"), py::arg("lse"), py::arg("logits"), py::arg("targets"), py::arg("smoothing") = 0.0f);
  m.def(
      "cross_entropy_backward",
      [](const Array& dlogits, const Array& dlosses, const Array& logits, const Array& lse, const Array& targets,
         float smoothing) {
        const char* op = "cross_entropy_backward";
        expect(op, "logits", logits, {-1, -1}, {DType::f32, DType::bf16});
        int64_t rows = logits.shape[0], V = logits.shape[1];
        expect(op, "dlogits", dlogits, logits.shape, {logits.dtype});
        expect(op, "dlosses", dlosses, {rows}, {DType::f32}, false);
        expect(op, "lse", lse, {rows}, {DType::f32}, false);
        expect_smoothing(op, smoothing);
        expect(op, "targets", targets, {rows}, {DType::i32}, false);
        expect_ids(op, "targets", targets, V, true);
        CrossEntropyBackwardArgs a{
            output(op, dlogits), view(dlosses), view(logits), view(lse), view(targets), rows, V, smoothing};
        GM_CALL(cross_entropy_backward, a);
      },
      py::arg("dlogits"), py::arg("dlosses"), py::arg("logits"), py::arg("lse"), py::arg("targets"),
      py::arg("smoothing") = 0.0f);
}

}  // namespace gristmill
