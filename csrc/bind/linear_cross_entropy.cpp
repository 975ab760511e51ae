#include "bind/array.h"

namespace gristmill {

GM_BIND(linear_cross_entropy) {
  using Optional = std::optional<Array>;
  m.def(
      "linear_cross_entropy",
      [](const Array& losses, const Optional& dx, const Optional& dweight, const Array& x, const Array& weight,
         const Array& targets, float scale, const std::string& compute, float smoothing) {
        const char* op = "linear_cross_entropy";
        expect(op, "x", x, {-1, -1}, {DType::f32, DType::bf16});
        int64_t rows = x.shape[0], cols = x.shape[1];
        expect(op, "weight", weight, {-1, cols}, {DType::f32, DType::bf16});
        expect(op, "targets", targets, {rows}, {DType::i32}, false);
        expect(op, "losses", losses, {rows}, {DType::f32}, false);
        if (dx) expect(op, "dx", *dx, x.shape, {DType::f32, DType::bf16});
        if (dweight) expect(op, "dweight", *dweight, weight.shape, {DType::f32});
        expect_smoothing(op, smoothing);
        expect_ids(op, "targets", targets, weight.shape[0], true);
        LinearCrossEntropyArgs a{output(op, losses),
                                 output(op, dx),
                                 output(op, dweight),
                                 view(x),
                                 view(weight),
                                 view(targets),
                                 rows,
                                 cols,
                                 weight.shape[0],
                                 scale,
                                 smoothing,
                                 dtype_from(compute)};
        GM_CALL(linear_cross_entropy, a);
      },
      py::arg("losses"), py::arg("dx"), py::arg("dweight"), py::arg("x"), py::arg("weight"), py::arg("targets"),
      py::arg("scale"), py::arg("compute") = "float32", py::arg("smoothing") = 0.0f);
}

}  // namespace gristmill
