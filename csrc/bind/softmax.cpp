#include "bind/array.h"

namespace gristmill {

GM_BIND(softmax) {
  m.def(
      "softmax_forward",
      [](const Array& out, const Array& x) {
        const char* op = "softmax_forward";
        expect(op, "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect(op, "out", out, x.shape, {DType::f32, DType::bf16});
        SoftmaxForwardArgs a{output(op, out), view(x), x.shape[0], x.shape[1]};
        GM_CALL(softmax_forward, a);
      },
      py::arg("out"), py::arg("x"));
  m.def(
      "softmax_backward",
      [](const Array& dx, const Array& dout, const Array& out) {
        const char* op = "softmax_backward";
        expect(op, "out", out, {-1, -1}, {DType::f32, DType::bf16});
        expect(op, "dx", dx, out.shape, {out.dtype});
        expect(op, "dout", dout, out.shape, {out.dtype});
        SoftmaxBackwardArgs a{output(op, dx), view(dout), view(out), out.shape[0], out.shape[1]};
        GM_CALL(softmax_backward, a);
      },
      py::arg("dx"), py::arg("dout"), py::arg("out"));
}

}  // namespace gristmill
