#include "bind/array.h"

namespace gristmill {

GM_BIND(init) {
  m.def(
      "random",
      [](const Array& out, uint64_t seed, uint64_t stream, const std::string& distribution, float a, float b) {
        expect("random", "out", out, {-1}, {DType::f32, DType::bf16});
        constexpr const char* kNames[] = {"uniform", "normal", "truncated_normal"};
        int32_t kind = 0;
        while (kind < 3 && distribution != kNames[kind]) ++kind;
        if (kind == 3)
          throw py::value_error("random: distribution '" + distribution +
                                "' is not one of uniform, normal, truncated_normal");
        uint64_t key[2] = {seed, stream};
        RandomArgs args{output("random", out), key, out.shape[0], kind, a, b};
        GM_CALL(random, args);
      },
      py::arg("out"), py::arg("seed"), py::arg("stream"), py::arg("distribution"), py::arg("a"), py::arg("b"));
  m.def(
      "orthogonal",
      [](const Array& out, float gain) {
        expect("orthogonal", "out", out, {-1, -1}, {DType::f32});
        if (!out.contiguous())
          throw py::value_error("orthogonal: out has strides " + shape_string(out.strides) + ", it must be contiguous");
        OrthogonalArgs args{output("orthogonal", out), out.shape[0], out.shape[1], gain};
        GM_CALL(orthogonal, args);
      },
      py::arg("out"), py::arg("gain"));
}

}  // namespace gristmill
