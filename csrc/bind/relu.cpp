#include "bind/array.h"

namespace gristmill {

GM_BIND(relu) {
  m.def(
      "relu_forward",
      [](const Array& out, const Array& x) {
        expect("relu_forward", "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect("relu_forward", "out", out, x.shape, {x.dtype});
        ReluForwardArgs a{output("relu_forward", out), view(x), x.shape[0], x.shape[1]};
        GM_CALL(relu_forward, a);
      },
      py::arg("out"), py::arg("x"));
  m.def(
      "relu_backward",
      [](const Array& dx, const Array& dout, const Array& out) {
        expect("relu_backward", "out", out, {-1, -1}, {DType::f32, DType::bf16});
        expect("relu_backward", "dx", dx, out.shape, {out.dtype});
        expect("relu_backward", "dout", dout, out.shape, {out.dtype});
        ReluBackwardArgs a{output("relu_backward", dx), view(dout), view(out), out.shape[0], out.shape[1]};
        GM_CALL(relu_backward, a);
      },
      py::arg("dx"), py::arg("dout"), py::arg("out"));
}

}  // namespace gristmill
