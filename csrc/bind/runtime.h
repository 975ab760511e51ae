// What the bindings of the runtime share: a model with what keeps its memory, errors as exceptions.
#pragma once
#include <string>
#include <vector>

#include "bind/array.h"
#include "runtime/model.h"

namespace gristmill {

struct Model {
  runtime::Model model;
  py::object metadata = py::none();         // made on first use
  std::vector<std::shared_ptr<void>> keep;  // memory of live tensors
  std::string digest;
};

[[noreturn]] inline void raise(const runtime::Error& error) { throw py::value_error(error.text); }

void bind_session(py::module_& m);  // after Model: its signatures name it

}  // namespace gristmill
