#include "bind/array.h"

namespace gristmill {

GM_BIND(tanh) {
  m.def(
      "tanh_forward",
      [](const Array& out, const Array& x) {
        expect("tanh_forward", "x", x, {-1, -1}, {DType::f32, DType::bf16});
        expect("tanh_forward", "out", out, x.shape, {x.dtype});
        TanhForwardArgs a{output("tanh_forward", out), view(x), x.shape[0], x.shape[1]};
        GM_CALL(tanh_forward, a);
      },
      py::arg("out"), py::arg("x"));
  m.def(
      "tanh_backward",
      [](const Array& dx, const Array& dout, const Array& out) {
        expect("tanh_backward", "out", out, {-1, -1}, {DType::f32, DType::bf16});
        expect("tanh_backward", "dx", dx, out.shape, {out.dtype});
        expect("tanh_backward", "dout", dout, out.shape, {out.dtype});
        TanhBackwardArgs a{output("tanh_backward", dx), view(dout), view(out), out.shape[0], out.shape[1]};
        GM_CALL(tanh_backward, a);
      },
      py::arg("dx"), py::arg("dout"), py::arg("out"));
}

}  // namespace gristmill
