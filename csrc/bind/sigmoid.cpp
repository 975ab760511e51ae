#include "bind/array.h"

namespace gristmill {

GM_BIND(sigmoid) {
  m.def(
      "sigmoid_forward",
      [](const Array& out, const Array& x) {
        expect("sigmoid_forward", "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect("sigmoid_forward", "out", out, x.shape, {x.dtype});
        SigmoidForwardArgs a{output("sigmoid_forward", out), view(x), x.shape[0], x.shape[1]};
        GM_CALL(sigmoid_forward, a);
      },
      py::arg("out"), py::arg("x"));
  m.def(
      "sigmoid_backward",
      [](const Array& dx, const Array& dout, const Array& out) {
        expect("sigmoid_backward", "out", out, {-1, -1}, {DType::f32, DType::bf16});
        expect("sigmoid_backward", "dx", dx, out.shape, {out.dtype});
        expect("sigmoid_backward", "dout", dout, out.shape, {out.dtype});
        SigmoidBackwardArgs a{output("sigmoid_backward", dx), view(dout), view(out), out.shape[0], out.shape[1]};
        GM_CALL(sigmoid_backward, a);
      },
      py::arg("dx"), py::arg("dout"), py::arg("out"));
}

}  // namespace gristmill
