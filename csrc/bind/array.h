// What the bindings share: Array (a shared buffer with offset, shape and strides), its checks, and the one way to call
// the active table.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend.h"
#include "kernels.h"

namespace gristmill {

namespace py = pybind11;

struct Array {
  std::shared_ptr<void> buffer;         // keeps the memory alive: ours, or a NumPy array's
  char* data = nullptr;                 // first element
  std::vector<int64_t> shape, strides;  // strides in elements
  DType dtype = DType::f32;
  int accumulate = 0;
  bool read_only = false;
  bool foreign = false;  // somebody else's memory

  int64_t size() const;
  bool contiguous() const;
};

Array empty(std::vector<int64_t> shape, DType dtype);
std::string shape_string(const std::vector<int64_t>& shape, bool any = false);  // any: below 0 says "any"

// At most four dimensions.
View view(const Array& array);
inline View view(const std::optional<Array>& array) { return array ? view(*array) : View{}; }

// The same for an array that is written to; raises ValueError when it is read-only.
View output(const char* op, const Array& array);
inline View output(const char* op, const std::optional<Array>& array) { return array ? output(op, *array) : View{}; }

DType dtype_from(const std::string& name);

// Raises IndexError naming op when an id is not below `limit` (and, unless `negative`, not from 0 on).
void expect_smoothing(const char* op, float smoothing);
void expect_ids(const char* op, const char* name, const Array& ids, int64_t limit, bool negative);

// Raises ValueError naming op and argument when the shape (-1: any), dtype or last stride is not what the op takes.
void expect(const char* op, const char* name, const Array& array, std::vector<int64_t> shape,
            std::initializer_list<DType> allowed, bool last_stride_1 = true);

[[noreturn]] void raise_memory(const char* op, const std::string& bytes);
[[noreturn]] void raise_status(const char* op, Status status, int64_t workspace);

template <class Args>
void call_kernel(const char* op, Status (*fn)(Context*, const Args*), int64_t (*workspace)(const Args*, int32_t),
                 const Args& args) {
  if (!fn)
    throw std::runtime_error(std::string(op) + ": table '" + kernels()->name +
                             "' has no such kernel; choose another with GRISTMILL_ISA");
  Status status = Status::workspace;
  int64_t bytes;
  bool enough;
  {
    py::gil_scoped_release release;
    Context ctx;
    make_context(&ctx, 0);
    bytes = workspace ? workspace(&args, ctx.threads) : 0;
    enough = make_context(&ctx, bytes);
    if (enough) status = fn(&ctx, &args);
  }
  if (!enough) raise_memory(op, std::to_string(bytes));
  if (status != Status::ok) raise_status(op, status, bytes);
}

#define GM_CALL(entry, args) ::gristmill::call_kernel(#entry, kernels()->entry, kernels()->entry##_workspace, args)

void bind_array(py::module_& m);  // before all others: their signatures name Array

// Files of bind/ register themselves; the module runs all of them.
struct Binding {
  void (*bind)(py::module_&);
  Binding* next;
  static Binding*& first();
  explicit Binding(void (*f)(py::module_&)) : bind(f), next(first()) { first() = this; }
};

#define GM_BIND(name)                                       \
  static void bind_##name(py::module_& m);                  \
  static ::gristmill::Binding register_##name(bind_##name); \
  static void bind_##name(py::module_& m)

}  // namespace gristmill
