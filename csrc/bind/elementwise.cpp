#include "bind/array.h"

namespace gristmill {
namespace {

constexpr const char* kNames[] = {"copy", "add", "sub", "mul", "div", "maximum", "neg", "exp", "log", "sqrt", "square"};

int32_t op_from(const std::string& name) {
  std::string all;
  for (int32_t i = 0; i < static_cast<int32_t>(std::size(kNames)); ++i) {
    if (name == kNames[i]) return i;
    all += std::string(i ? ", " : "") + kNames[i];
  }
  throw py::value_error("elementwise: op '" + name + "' is not one of " + all);
}

bool takes_two(Elementwise op) { return op >= Elementwise::add && op <= Elementwise::maximum; }

// With ones in front up to the contract's four dimensions.
Array padded(const Array& a) {
  Array p = a;
  while (p.shape.size() < 4) p.shape.insert(p.shape.begin(), 1), p.strides.insert(p.strides.begin(), 0);
  return p;
}

}  // namespace

GM_BIND(elementwise) {
  m.def(
      "elementwise",
      [](const Array& out, const Array& a, const std::optional<Array>& b, const std::string& op, float alpha) {
        const char* name = "elementwise";
        expect(name, "a", a, out.shape, {}, false);
        if (b) expect(name, "b", *b, out.shape, {}, false);
        int32_t kind = op_from(op);
        if (b && !takes_two(static_cast<Elementwise>(kind)))
          throw py::value_error("elementwise: " + op + " takes one operand; give None for b");
        Array o = padded(out), x = padded(a);
        std::optional<Array> y;
        if (b) y = padded(*b);
        ElementwiseArgs args{output(name, o), view(x),    view(y), o.shape[0], o.shape[1],
                             o.shape[2],      o.shape[3], kind,    alpha};
        GM_CALL(elementwise, args);
      },
      py::arg("out"), py::arg("a"), py::arg("b"), py::arg("op"), py::arg("alpha"),
      "out = op(a, b), or op(a, alpha) without b; shapes equal, at most 4 dimensions, stride 0 broadcasts.");
}

}  // namespace gristmill
