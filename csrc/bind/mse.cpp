#include "bind/array.h"

namespace gristmill {

GM_BIND(mse) {
  m.def(
      "mse_forward",
      [](const Array& loss, const Array& x, const Array& target) {
        const char* op = "mse_forward";
        expect(op, "x", x, {-1}, {DType::f32, DType::bf16});
        expect(op, "target", target, x.shape, {x.dtype});
        expect(op, "loss", loss, {1}, {x.dtype});
        MseForwardArgs a{output(op, loss), view(x), view(target), x.shape[0]};
        GM_CALL(mse_forward, a);
      },
      py::arg("loss"), py::arg("x"), py::arg("target"));
  m.def(
      "mse_backward",
      [](const std::optional<Array>& dx, const std::optional<Array>& dtarget, const Array& dloss, const Array& x,
         const Array& target) {
        const char* op = "mse_backward";
        expect(op, "x", x, {-1}, {DType::f32, DType::bf16});
        expect(op, "target", target, x.shape, {x.dtype});
        if (dx) expect(op, "dx", *dx, x.shape, {x.dtype});
        if (dtarget) expect(op, "dtarget", *dtarget, x.shape, {x.dtype});
        expect(op, "dloss", dloss, {1}, {x.dtype});
        MseBackwardArgs a{output(op, dx), output(op, dtarget), view(dloss), view(x), view(target), x.shape[0]};
        GM_CALL(mse_backward, a);
      },
      py::arg("dx"), py::arg("dtarget"), py::arg("dloss"), py::arg("x"), py::arg("target"));
}

}  // namespace gristmill
