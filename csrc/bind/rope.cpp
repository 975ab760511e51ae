#include "bind/array.h"

namespace gristmill {

GM_BIND(rope) {
  m.def(
      "rope",
      [](const Array& out, const Array& x, const Array& cos, const Array& sin, const std::optional<Array>& start,
         bool inverse, bool interleaved) {
        const char* op = "rope";
        expect(op, "x", x, {-1, -1, -1, -1}, {DType::f32, DType::bf16});
        int64_t B = x.shape[0], T = x.shape[1], H = x.shape[2], D = x.shape[3];
        if (D % 2) throw py::value_error("rope: last dimension " + std::to_string(D) + " is odd; pairs are turned");
        expect(op, "out", out, x.shape, {x.dtype});
        expect(op, "cos", cos, {-1, D / 2}, {DType::f32});
        expect(op, "sin", sin, cos.shape, {DType::f32});
        if (start) expect(op, "start", *start, {B}, {DType::i64}, false);
        for (int64_t i = 0; i < B; ++i) {
          int64_t first = start ? reinterpret_cast<const int64_t*>(start->data)[i * start->strides[0]] : 0;
          if (first < 0 || first + T > cos.shape[0])
            throw py::value_error("rope: positions " + std::to_string(first) + " to " + std::to_string(first + T - 1) +
                                  " given, the table has " + std::to_string(cos.shape[0]));
        }
        RopeArgs a{output(op, out), view(x), view(cos),  view(sin), view(start), B, T, H, D,
                   cos.shape[0],    inverse, interleaved};
        GM_CALL(rope, a);
      },
      py::arg("out"), py::arg("x"), py::arg("cos"), py::arg("sin"), py::arg("start"), py::arg("inverse"),
      py::arg("interleaved"));
}

}  // namespace gristmill
