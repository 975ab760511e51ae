#include "bind/array.h"

namespace gristmill {

GM_BIND(dropout) {
  m.def(
      "dropout",
      [](const Array& out, const Array& x, uint64_t seed, uint64_t stream, float p) {
        expect("dropout", "x", x, {-1}, {DType::f32, DType::bf16});
        expect("dropout", "out", out, x.shape, {x.dtype});
        if (!(p >= 0.0f && p < 1.0f))
          throw py::value_error("dropout: p is " + std::to_string(p) + ", allowed is 0 <= p < 1");
        uint64_t key[2] = {seed, stream};
        DropoutArgs a{output("dropout", out), view(x), key, x.shape[0], p};
        GM_CALL(dropout, a);
      },
      py::arg("out"), py::arg("x"), py::arg("seed"), py::arg("stream"), py::arg("p"));
}

}  // namespace gristmill
