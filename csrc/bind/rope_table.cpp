#include "runtime/rope_table.h"

#include "bind/array.h"

namespace gristmill {

// One function makes the table for training and for the runtime, so both rotate by the same bits.
GM_BIND(rope_table) {
  m.def(
      "rope_table",
      [](const Array& cos, const Array& sin, double theta) {
        expect("rope_table", "cos", cos, {-1, -1}, {DType::f32});
        expect("rope_table", "sin", sin, cos.shape, {DType::f32});
        if (!cos.contiguous() || !sin.contiguous()) throw py::value_error("rope_table: cos and sin must be contiguous");
        runtime::rope_table(static_cast<float>(theta), nullptr, 2 * cos.shape[1], cos.shape[0],
                            static_cast<float*>(output("rope_table", cos).data),
                            static_cast<float*>(output("rope_table", sin).data));
      },
      py::arg("cos"), py::arg("sin"), py::arg("theta"), "Fills cos and sin, both (positions, D/2).");
}

}  // namespace gristmill
