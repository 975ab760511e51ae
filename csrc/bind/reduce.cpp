#include "bind/array.h"

namespace gristmill {

GM_BIND(reduce) {
  m.def(
      "reduce",
      [](const Array& out, const Array& x, const std::string& op) {
        const char* name = "reduce";
        expect(name, "x", x, {-1, -1}, {DType::f32, DType::bf16}, false);
        expect(name, "out", out, {x.shape[0]}, {DType::f32}, false);
        constexpr const char* kNames[] = {"sum", "mean", "max", "sum_of_squares"};
        int32_t kind = 0;
        while (kind < 4 && op != kNames[kind]) ++kind;
        if (kind == 4) throw py::value_error("reduce: op '" + op + "' is not one of sum, mean, max, sum_of_squares");
        if (x.shape[1] < 1)
          throw py::value_error("reduce: x has shape " + shape_string(x.shape) + ", at least one column is needed");
        ReduceArgs a{output(name, out), view(x), x.shape[0], x.shape[1], kind};
        GM_CALL(reduce, a);
      },
      py::arg("out"), py::arg("x"), py::arg("op"));
}

}  // namespace gristmill
