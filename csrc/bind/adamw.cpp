#include "bind/array.h"

namespace gristmill {

GM_BIND(adamw) {
  m.def(
      "adamw",
      [](const Array& param, const Array& mean, const Array& square, const Array& grad, const Array& step, float beta1,
         float beta2, float eps, float weight_decay) {
        const char* op = "adamw";
        expect(op, "param", param, {-1}, {DType::f32});
        for (auto [name, array] : {std::pair{"m", &mean}, {"v", &square}, {"grad", &grad}})
          expect(op, name, *array, param.shape, {DType::f32});
        expect(op, "step", step, {4}, {DType::f32});
        AdamwArgs a{output(op, param),
                    output(op, mean),
                    output(op, square),
                    view(grad),
                    reinterpret_cast<const float*>(step.data),
                    param.shape[0],
                    beta1,
                    beta2,
                    eps,
                    weight_decay};
        GM_CALL(adamw, a);
      },
      py::arg("param"), py::arg("m"), py::arg("v"), py::arg("grad"), py::arg("step"), py::arg("beta1"),
      py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"),
      "step: [learning rate, gradient scale, 1 - beta1^t, 1 - beta2^t].");
}

}  // namespace gristmill
