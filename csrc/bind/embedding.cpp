#include "bind/array.h"

namespace gristmill {

GM_BIND(embedding) {
  m.def(
      "embedding_forward",
      [](const Array& out, const Array& weight, const Array& ids) {
        const char* op = "embedding_forward";
        expect(op, "weight", weight, {-1, -1}, {DType::f32, DType::bf16});
        expect(op, "ids", ids, {-1}, {DType::i32}, false);
        expect(op, "out", out, {ids.shape[0], weight.shape[1]}, {DType::f32, DType::bf16});
        expect_ids(op, "ids", ids, weight.shape[0], false);
        EmbeddingForwardArgs a{output(op, out), view(weight),    view(ids),
                               ids.shape[0],    weight.shape[1], weight.shape[0]};
        GM_CALL(embedding_forward, a);
      },
      py::arg("out"), py::arg("weight"), py::arg("ids"));
  m.def(
      "embedding_backward",
      [](const Array& dweight, const Array& dout, const Array& ids) {
        const char* op = "embedding_backward";
        expect(op, "dweight", dweight, {-1, -1}, {DType::f32});
        expect(op, "ids", ids, {-1}, {DType::i32}, false);
        expect(op, "dout", dout, {ids.shape[0], dweight.shape[1]}, {DType::f32, DType::bf16});
        expect_ids(op, "ids", ids, dweight.shape[0], false);
        EmbeddingBackwardArgs a{output(op, dweight), view(dout),       view(ids),
                                ids.shape[0],        dweight.shape[1], dweight.shape[0]};
        GM_CALL(embedding_backward, a);
      },
      py::arg("dweight"), py::arg("dout"), py::arg("ids"));
}

}  // namespace gristmill
