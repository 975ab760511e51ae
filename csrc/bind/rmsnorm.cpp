#include "bind/array.h"

namespace gristmill {

GM_BIND(rmsnorm) {
  m.def(
      "rmsnorm_forward",
      [](const Array& out, const std::optional<Array>& rstd, const Array& x, const Array& weight, float eps) {
        const char* op = "rmsnorm_forward";
        expect(op, "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect(op, "weight", weight, {x.shape[1]}, {DType::f32});
        expect(op, "out", out, x.shape, {DType::f32, DType::bf16});
        if (rstd) expect(op, "rstd", *rstd, {x.shape[0]}, {DType::f32});
        RmsnormForwardArgs a{output(op, out), output(op, rstd), view(x), view(weight), x.shape[0], x.shape[1], eps};
        GM_CALL(rmsnorm_forward, a);
      },
      py::arg("out"), py::arg("rstd"), py::arg("x"), py::arg("weight"), py::arg("eps"));
  m.def(
      "rmsnorm_backward",
      [](const Array& dx, const Array& dweight, const Array& dout, const Array& x, const Array& weight,
         const Array& rstd) {
        const char* op = "rmsnorm_backward";
        expect(op, "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect(op, "weight", weight, {x.shape[1]}, {DType::f32});
        expect(op, "rstd", rstd, {x.shape[0]}, {DType::f32});
        expect(op, "dout", dout, x.shape, {DType::f32, DType::bf16});
        expect(op, "dx", dx, x.shape, {x.dtype});
        expect(op, "dweight", dweight, {x.shape[1]}, {DType::f32});
        RmsnormBackwardArgs a{output(op, dx), output(op, dweight), view(dout), view(x),
                              view(weight),   view(rstd),          x.shape[0], x.shape[1]};
        GM_CALL(rmsnorm_backward, a);
      },
      py::arg("dx"), py::arg("dweight"), py::arg("dout"), py::arg("x"), py::arg("weight"), py::arg("rstd"));
}

}  // namespace gristmill
