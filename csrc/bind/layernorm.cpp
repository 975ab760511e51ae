#include "bind/array.h"

namespace gristmill {

using Optional = std::optional<Array>;

GM_BIND(layernorm) {
  m.def(
      "layernorm_forward",
      [](const Array& out, const Optional& mean, const Optional& rstd, const Array& x, const Array& weight,
         const Optional& bias, float eps) {
        const char* op = "layernorm_forward";
        expect(op, "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect(op, "weight", weight, {x.shape[1]}, {DType::f32});
        if (bias) expect(op, "bias", *bias, {x.shape[1]}, {DType::f32});
        expect(op, "out", out, x.shape, {DType::f32, DType::bf16});
        if (mean) expect(op, "mean", *mean, {x.shape[0]}, {DType::f32});
        if (rstd) expect(op, "rstd", *rstd, {x.shape[0]}, {DType::f32});
        LayernormForwardArgs a{output(op, out), output(op, mean), output(op, rstd), view(x), view(weight),
                               view(bias),      x.shape[0],       x.shape[1],       eps};
        GM_CALL(layernorm_forward, a);
      },
      py::arg("out"), py::arg("mean"), py::arg("rstd"), py::arg("x"), py::arg("weight"), py::arg("bias"),
      py::arg("eps"));
  m.def(
      "layernorm_backward",
      [](const Array& dx, const Array& dweight, const Optional& dbias, const Array& dout, const Array& x,
         const Array& weight, const Array& mean, const Array& rstd) {
        const char* op = "layernorm_backward";
        expect(op, "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect(op, "weight", weight, {x.shape[1]}, {DType::f32});
        expect(op, "mean", mean, {x.shape[0]}, {DType::f32});
        expect(op, "rstd", rstd, {x.shape[0]}, {DType::f32});
        expect(op, "dout", dout, x.shape, {DType::f32, DType::bf16});
        expect(op, "dx", dx, x.shape, {x.dtype});
        expect(op, "dweight", dweight, {x.shape[1]}, {DType::f32});
        if (dbias) expect(op, "dbias", *dbias, {x.shape[1]}, {DType::f32});
        LayernormBackwardArgs a{output(op, dx), output(op, dweight), output(op, dbias), view(dout), view(x),
                                view(weight),   view(mean),          view(rstd),        x.shape[0], x.shape[1]};
        GM_CALL(layernorm_backward, a);
      },
      py::arg("dx"), py::arg("dweight"), py::arg("dbias"), py::arg("dout"), py::arg("x"), py::arg("weight"),
      py::arg("mean"), py::arg("rstd"));
}

}  // namespace gristmill
