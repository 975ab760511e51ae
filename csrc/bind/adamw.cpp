#include "bind/array.h"

namespace gristmill {

GM_BIND(adamw) {
  m.def(
      "adamw",
      [](const Array& param, const Array& mean, const Array& square, const Array& grad, const Array& step, float beta1,
         float beta2, float eps, float weight_decay, uint64_t seed, uint64_t stream) {
        const char* op = "adamw";
        expect(op, "param", param, {-1}, {DType::f32});
        expect(op, "m", mean, param.shape, {DType::f32, DType::bf16});
        expect(op, "v", square, param.shape, {mean.dtype});
        expect(op, "grad", grad, param.shape, {DType::f32});
        expect(op, "step", step, {4}, {DType::f32});
        uint64_t key[2] = {seed, stream};
        AdamwArgs a{output(op, param),
                    output(op, mean),
                    output(op, square),
                    view(grad),
                    reinterpret_cast<const float*>(step.data),
                    key,
                    param.shape[0],
                    beta1,
                    beta2,
                    eps,
                    weight_decay};
        GM_CALL(adamw, a);
      },
      py::arg("param"), py::arg("m"), py::arg("v"), py::arg("grad"), py::arg("step"), py::arg("beta1"),
      py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"), py::arg("seed") = 0, py::arg("stream") = 0,
      "step: [learning rate, gradient scale, 1 - beta1^t, 1 - beta2^t]. Seed and stream round m and v where they are "
      "bfloat16.");
}

}  // namespace gristmill
