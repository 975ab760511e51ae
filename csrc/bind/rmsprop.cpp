#include "bind/array.h"

namespace gristmill {

GM_BIND(rmsprop) {
  m.def(
      "rmsprop",
      [](const Array& param, const Array& square, const std::optional<Array>& mean,
         const std::optional<Array>& velocity, const Array& grad, const Array& step, float alpha, float eps,
         float weight_decay, float momentum) {
        const char* op = "rmsprop";
        expect(op, "param", param, {-1}, {DType::f32});
        expect(op, "square", square, param.shape, {DType::f32});
        expect(op, "grad", grad, param.shape, {DType::f32});
        expect(op, "step", step, {2}, {DType::f32});
        if (mean) expect(op, "mean", *mean, param.shape, {DType::f32});
        if (velocity) expect(op, "velocity", *velocity, param.shape, {DType::f32});
        if (momentum != 0.0f && !velocity) throw py::value_error("rmsprop: momentum needs a velocity array");
        RmspropArgs a{output(op, param),
                      output(op, square),
                      output(op, mean),
                      output(op, velocity),
                      view(grad),
                      reinterpret_cast<const float*>(step.data),
                      param.shape[0],
                      alpha,
                      eps,
                      weight_decay,
                      momentum};
        GM_CALL(rmsprop, a);
      },
      py::arg("param"), py::arg("square"), py::arg("mean"), py::arg("velocity"), py::arg("grad"), py::arg("step"),
      py::arg("alpha"), py::arg("eps"), py::arg("weight_decay"), py::arg("momentum"),
      "step: [learning rate, gradient scale]; mean: None where not centred.");
}

}  // namespace gristmill
