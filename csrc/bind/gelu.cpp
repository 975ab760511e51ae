#include "bind/array.h"

namespace gristmill {

GM_BIND(gelu) {
  m.def(
      "gelu_forward",
      [](const Array& out, const Array& x, bool approximate) {
        expect("gelu_forward", "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect("gelu_forward", "out", out, x.shape, {x.dtype});
        GeluForwardArgs a{output("gelu_forward", out), view(x), x.shape[0], x.shape[1], approximate};
        GM_CALL(gelu_forward, a);
      },
      py::arg("out"), py::arg("x"), py::arg("approximate"));
  m.def(
      "gelu_backward",
      [](const Array& dx, const Array& dout, const Array& x, bool approximate) {
        expect("gelu_backward", "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect("gelu_backward", "dx", dx, x.shape, {x.dtype});
        expect("gelu_backward", "dout", dout, x.shape, {x.dtype});
        GeluBackwardArgs a{output("gelu_backward", dx), view(dout), view(x), x.shape[0], x.shape[1], approximate};
        GM_CALL(gelu_backward, a);
      },
      py::arg("dx"), py::arg("dout"), py::arg("x"), py::arg("approximate"));
}

}  // namespace gristmill
