#include "bind/array.h"

namespace gristmill {

GM_BIND(swiglu) {
  m.def(
      "swiglu_forward",
      [](const Array& out, const Array& gate, const Array& up) {
        const char* op = "swiglu_forward";
        expect(op, "gate", gate, {-1, -1}, {DType::f32, DType::bf16});
        expect(op, "up", up, gate.shape, {gate.dtype});
        expect(op, "out", out, gate.shape, {gate.dtype});
        SwigluForwardArgs a{output(op, out), view(gate), view(up), gate.shape[0], gate.shape[1]};
        GM_CALL(swiglu_forward, a);
      },
      py::arg("out"), py::arg("gate"), py::arg("up"));
  m.def(
      "swiglu_backward",
      [](const Array& dgate, const Array& dup, const Array& dout, const Array& gate, const Array& up) {
        const char* op = "swiglu_backward";
        expect(op, "gate", gate, {-1, -1}, {DType::f32, DType::bf16});
        for (auto [name, array] : {std::pair{"up", &up}, {"dout", &dout}, {"dgate", &dgate}, {"dup", &dup}})
          expect(op, name, *array, gate.shape, {gate.dtype});
        SwigluBackwardArgs a{output(op, dgate), output(op, dup), view(dout),   view(gate),
                             view(up),          gate.shape[0],   gate.shape[1]};
        GM_CALL(swiglu_backward, a);
      },
      py::arg("dgate"), py::arg("dup"), py::arg("dout"), py::arg("gate"), py::arg("up"));
}

}  // namespace gristmill
