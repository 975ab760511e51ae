#include "bind/array.h"

namespace gristmill {

GM_BIND(sgd) {
  m.def(
      "sgd",
      [](const Array& param, const std::optional<Array>& velocity, const Array& grad, const Array& step, float momentum,
         float dampening, float weight_decay, bool nesterov) {
        const char* op = "sgd";
        expect(op, "param", param, {-1}, {DType::f32});
        expect(op, "grad", grad, param.shape, {DType::f32});
        expect(op, "step", step, {3}, {DType::f32});
        if (velocity) expect(op, "velocity", *velocity, param.shape, {DType::f32});
        if (momentum != 0.0f && !velocity) throw py::value_error("sgd: momentum needs a velocity array");
        SgdArgs a{output(op, param), output(op, velocity),
                  view(grad),        reinterpret_cast<const float*>(step.data),
                  param.shape[0],    momentum,
                  dampening,         weight_decay,
                  nesterov};
        GM_CALL(sgd, a);
      },
      py::arg("param"), py::arg("velocity"), py::arg("grad"), py::arg("step"), py::arg("momentum"),
      py::arg("dampening"), py::arg("weight_decay"), py::arg("nesterov"),
      "step: [learning rate, gradient scale, 1 on the first step else 0].");
}

}  // namespace gristmill
