#include "bind/array.h"

namespace gristmill {

GM_BIND(silu) {
  m.def(
      "silu_forward",
      [](const Array& out, const Array& x) {
        expect("silu_forward", "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect("silu_forward", "out", out, x.shape, {x.dtype});
        SiluForwardArgs a{output("silu_forward", out), view(x), x.shape[0], x.shape[1]};
        GM_CALL(silu_forward, a);
      },
      py::arg("out"), py::arg("x"));
  m.def(
      "silu_backward",
      [](const Array& dx, const Array& dout, const Array& x) {
        expect("silu_backward", "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect("silu_backward", "dx", dx, x.shape, {x.dtype});
        expect("silu_backward", "dout", dout, x.shape, {x.dtype});
        SiluBackwardArgs a{output("silu_backward", dx), view(dout), view(x), x.shape[0], x.shape[1]};
        GM_CALL(silu_backward, a);
      },
      py::arg("dx"), py::arg("dout"), py::arg("x"));
}

}  // namespace gristmill
