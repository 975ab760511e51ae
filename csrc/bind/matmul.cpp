#include "bind/array.h"

namespace gristmill {

GM_BIND(matmul) {
  m.def("matmul", [](const Array& out, const Array& a, const Array& b, const std::string& compute) {
    const char* op = "matmul";
    expect(op, "a", a, {-1, -1, -1}, {DType::f32, DType::bf16}, false);
    expect(op, "b", b, {a.shape[0], a.shape[2], -1}, {DType::f32, DType::bf16}, false);
    expect(op, "out", out, {a.shape[0], a.shape[1], b.shape[2]}, {DType::f32, DType::bf16});
    MatmulArgs args{output(op, out), view(a), view(b), a.shape[0], a.shape[1], b.shape[2], a.shape[2], dtype_from(compute)};
    GM_CALL(matmul, args);
  }, py::arg("out"), py::arg("a"), py::arg("b"), py::arg("compute") = "float32",
        "out (batch, M, N) = a (batch, M, K) @ b (batch, K, N), with any strides of a and b.");
}

}  // namespace gristmill
