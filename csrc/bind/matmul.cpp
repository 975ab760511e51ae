#include <cstring>

#include "bind/array.h"

namespace gristmill {
namespace {

// What stands before the panels, so that a pack of another table, shape or type is refused.
struct alignas(64) PackHeader {
  char table[32];
  int64_t K, N;
  DType compute;
};

PackHeader header_of(const Array& b, DType compute) {
  PackHeader h{};
  std::strncpy(h.table, kernels()->name, sizeof h.table - 1);
  h.K = b.shape[b.shape.size() - 2], h.N = b.shape.back(), h.compute = compute;
  return h;
}

Array pack(const Array& b, const std::string& compute) {
  expect("matmul_pack", "b", b, {-1, -1}, {DType::f32, DType::bf16}, false);
  MatmulPackArgs a{{}, view(b), b.shape[1], b.shape[0], dtype_from(compute)};
  if (!kernels()->matmul_pack_workspace) throw std::runtime_error("matmul_pack: this table has no such kernel");
  Array out = empty({static_cast<int64_t>(sizeof(PackHeader)) + kernels()->matmul_pack_workspace(&a, 1)}, DType::u8);
  a.out = view(out);
  a.out.data = out.data + sizeof(PackHeader);
  call_kernel<MatmulPackArgs>("matmul_pack", kernels()->matmul_pack, nullptr, a);
  *reinterpret_cast<PackHeader*>(out.data) = header_of(b, a.compute);
  return out;
}

const void* packed_for(const Array& packed, const Array& b, DType compute) {
  PackHeader wanted = header_of(b, compute);
  MatmulPackArgs a{{}, {}, wanted.N, wanted.K, compute};
  bool whole = kernels()->matmul_pack_workspace && packed.dtype == DType::u8 && packed.contiguous() &&
               packed.size() == static_cast<int64_t>(sizeof wanted) + kernels()->matmul_pack_workspace(&a, 1);
  if (!whole || b.shape[0] != 1 || std::memcmp(packed.data, &wanted, offsetof(PackHeader, compute) + sizeof(DType)))
    throw py::value_error("matmul: packed was not made by table '" + std::string(kernels()->name) +
                          "' from a b of shape " + shape_string(b.shape) +
                          " for this compute type; call matmul_pack again");
  return packed.data + sizeof wanted;
}

}  // namespace

GM_BIND(matmul) {
  m.def("matmul_pack", &pack, py::arg("b"), py::arg("compute") = "float32",
        "b (K, N) as the active table's matmul reads it; opaque bytes for its argument `packed`.");
  m.def(
      "matmul",
      [](const Array& out, const Array& a, const Array& b, const std::string& compute,
         const std::optional<Array>& packed) {
        const char* op = "matmul";
        expect(op, "a", a, {-1, -1, -1}, {DType::f32, DType::bf16}, false);
        expect(op, "b", b, {a.shape[0], a.shape[2], -1}, {DType::f32, DType::bf16}, false);
        expect(op, "out", out, {a.shape[0], a.shape[1], b.shape[2]}, {DType::f32, DType::bf16});
        MatmulArgs args{output(op, out), view(a),    view(b),    a.shape[0],
                        a.shape[1],      b.shape[2], a.shape[2], dtype_from(compute)};
        if (packed) args.b.packed = packed_for(*packed, b, args.compute);
        GM_CALL(matmul, args);
      },
      py::arg("out"), py::arg("a"), py::arg("b"), py::arg("compute") = "float32", py::arg("packed") = py::none(),
      "out (batch, M, N) = a (batch, M, K) @ b (batch, K, N), with any strides of a and b.");
}

}  // namespace gristmill
