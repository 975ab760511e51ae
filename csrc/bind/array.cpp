#include "bind/array.h"

#include <pybind11/numpy.h>

#include "core/memory.h"

namespace gristmill {

Binding*& Binding::first() {
  static Binding* head = nullptr;
  return head;
}

int64_t Array::size() const {
  int64_t n = 1;
  for (int64_t s : shape) n *= s;
  return n;
}

bool Array::contiguous() const {
  int64_t expected = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

// Bytes of a shape without negative sizes; false where 63 bits do not hold them. A zero counts as one, so that the
// strides of an empty array fit too.
static bool extent(const char* op, const std::vector<int64_t>& shape, int64_t item, int64_t* bytes) {
  bool fits = true;
  *bytes = item;
  for (int64_t s : shape) {
    if (s < 0) throw py::value_error(std::string(op) + ": size " + std::to_string(s) + " in a shape is negative");
    fits = fits && !__builtin_mul_overflow(*bytes, s > 0 ? s : 1, bytes);
  }
  return fits;
}

static std::vector<int64_t> row_major(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

std::string shape_string(const std::vector<int64_t>& shape, bool any) {
  std::string s = "(";
  for (size_t i = 0; i < shape.size(); ++i)
    s += (i ? ", " : "") + (any && shape[i] < 0 ? "any" : std::to_string(shape[i]));
  return s + (shape.size() == 1 ? ",)" : ")");
}

void raise_memory(const char* op, const std::string& bytes) {
  std::string s = std::string(op) + ": out of memory: asked for " + bytes + " bytes with " +
                  std::to_string(memory_stats().in_use) + " in use; use a smaller batch or context, or recomputation";
  PyErr_SetString(PyExc_MemoryError, s.c_str());
  throw py::error_already_set();
}

Array empty(std::vector<int64_t> shape, DType dtype) {
  int64_t bytes;
  if (!extent("empty", shape, item_size(dtype), &bytes)) raise_memory("empty", "more than 2^63");
  Array a;
  a.shape = std::move(shape);
  a.strides = row_major(a.shape);
  a.dtype = dtype;
  if (a.size() == 0) bytes = 1;
  void* p = memory_acquire(bytes);
  if (!p) raise_memory("empty", std::to_string(bytes));
  a.buffer = std::shared_ptr<void>(p, [bytes](void* q) { memory_release(q, bytes); });
  a.data = static_cast<char*>(p);
  return a;
}

View view(const Array& array) {
  if (array.shape.size() > 4)
    throw py::value_error("a kernel takes at most 4 dimensions, got shape " + shape_string(array.shape));
  View v{};
  v.data = array.data;
  for (size_t i = 0; i < array.strides.size(); ++i) v.strides[i] = array.strides[i];
  v.dtype = array.dtype;
  v.accumulate = array.accumulate;
  return v;
}

void expect(const char* op, const char* name, const Array& array, std::vector<int64_t> shape,
            std::initializer_list<DType> allowed, bool last_stride_1) {
  auto fail = [&](const std::string& why) { throw py::value_error(std::string(op) + ": " + name + " " + why); };
  bool fits = array.shape.size() == shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || shape[i] == array.shape[i];
  if (!fits) fail("has shape " + shape_string(array.shape) + ", expected " + shape_string(shape, true));
  bool known = allowed.size() == 0;
  std::string names;
  for (DType t : allowed) {
    known |= t == array.dtype;
    names += (names.empty() ? "" : " or ") + std::string(dtype_name(t));
  }
  if (!known) fail(std::string("is ") + dtype_name(array.dtype) + ", expected " + names);
  if (last_stride_1 && !shape.empty() && array.shape.back() > 1 && array.strides.back() != 1)
    fail("has strides " + shape_string(array.strides) + ", the last must be 1; call .contiguous() first");
}

View output(const char* op, const Array& array) {
  if (array.read_only) throw py::value_error(std::string(op) + ": an output is read-only; give a writable array");
  return view(array);
}

void expect_smoothing(const char* op, float smoothing) {
  if (!(smoothing >= 0.0f && smoothing < 1.0f))
    throw py::value_error(std::string(op) + ": smoothing " + std::to_string(smoothing) +
                          " given, allowed: 0 <= smoothing < 1");
}

void expect_ids(const char* op, const char* name, const Array& ids, int64_t limit, bool negative) {
  const auto* data = reinterpret_cast<const int32_t*>(ids.data);
  for (int64_t i = 0; i < ids.shape[0]; ++i) {
    int32_t id = data[i * ids.strides[0]];
    if (id >= limit || (id < 0 && !negative))
      throw py::index_error(std::string(op) + ": " + name + "[" + std::to_string(i) + "] is " + std::to_string(id) +
                            ", allowed is " + (negative ? "below " : "0 to ") +
                            std::to_string(negative ? limit : limit - 1));
  }
}

void raise_status(const char* op, Status status, int64_t workspace) {
  std::string s = std::string(op) + " on table '" + kernels()->name + "'";
  for (int i = 0; i < entry_count(); ++i)
    if (entry_replaced(i) && std::string(op) == entry_name(i)) s += " (a kernel put in its place)";
  s += std::string(": ") + status_name(status);
  if (status == Status::workspace) s += " (" + std::to_string(workspace) + " bytes)";
  throw std::runtime_error(s);
}

DType dtype_from(const std::string& name) {
  for (DType t : {DType::f32, DType::bf16, DType::i32, DType::i64, DType::u8})
    if (name == dtype_name(t)) return t;
  throw py::type_error("dtype '" + name + "' is not one of float32, bfloat16, int32, int64, uint8");
}

static py::dtype numpy_dtype(DType t) {
  switch (t) {
    case DType::f32: return py::dtype::of<float>();
    case DType::bf16: return py::dtype::of<uint16_t>();
    case DType::i32: return py::dtype::of<int32_t>();
    case DType::i64: return py::dtype::of<int64_t>();
    case DType::u8: return py::dtype::of<uint8_t>();
  }
  throw py::type_error("unknown dtype");
}

static Array from_numpy(const py::array& source, bool bfloat16) {
  Array a;
  std::string kind = py::str(source.dtype());
  a.dtype = bfloat16 && kind == "uint16" ? DType::bf16 : dtype_from(kind);
  int64_t item = item_size(a.dtype);
  for (py::ssize_t i = 0; i < source.ndim(); ++i) {
    if (source.strides(i) % item)
      throw py::value_error("from_numpy: strides are not multiples of the element size; copy the array first");
    a.shape.push_back(source.shape(i));
    a.strides.push_back(source.strides(i) / item);
  }
  auto* keep = new py::array(source);
  a.buffer = std::shared_ptr<void>(keep, [](void* p) {
    py::gil_scoped_acquire gil;
    delete static_cast<py::array*>(p);
  });
  a.data = static_cast<char*>(const_cast<void*>(source.data()));
  a.read_only = !source.writeable();
  a.foreign = true;
  return a;
}

static py::array to_numpy(const Array& a) {
  auto* keep = new std::shared_ptr<void>(a.buffer);
  py::capsule owner(keep, [](void* p) { delete static_cast<std::shared_ptr<void>*>(p); });
  std::vector<py::ssize_t> shape(a.shape.begin(), a.shape.end()), strides;
  for (int64_t s : a.strides) strides.push_back(s * item_size(a.dtype));
  py::array out(numpy_dtype(a.dtype), shape, strides, a.data, owner);
  if (a.read_only) out.attr("flags").attr("writeable") = false;
  return out;
}

// Offset of the first and the last element in memory, from `first` on; false where 64 bits do not hold them.
static bool reach(const Array& a, int64_t first, int64_t* low, int64_t* high) {
  *low = *high = first;
  for (size_t i = 0; i < a.shape.size(); ++i) {
    int64_t step, *end = a.strides[i] < 0 ? low : high;
    if (__builtin_mul_overflow(a.shape[i] - 1, a.strides[i], &step) || __builtin_add_overflow(*end, step, end))
      return false;
  }
  return true;
}

// Row-major, with the buffer and flags of `a`.
static Array reshaped(const char* op, const Array& a, std::vector<int64_t> shape) {
  Array v = a;
  int64_t bytes;
  if (!extent(op, shape, item_size(a.dtype), &bytes))
    throw py::value_error(std::string(op) + ": shape " + shape_string(shape) + " has more than 2^63 bytes");
  v.shape = std::move(shape);
  v.strides = row_major(v.shape);
  return v;
}

// Bounds are those of this array's own elements.
static Array make_view(const Array& a, std::vector<int64_t> shape, std::optional<std::vector<int64_t>> strides,
                       int64_t offset) {
  Array v = reshaped("view", a, std::move(shape));
  if (strides) v.strides = *strides;
  if (v.strides.size() != v.shape.size())
    throw py::value_error("view: shape " + shape_string(v.shape) + " and strides " + shape_string(v.strides) +
                          " differ in length");
  if (v.size() == 0) {  // has no element that could lie outside
    v.data = a.data;
    return v;
  }
  int64_t low, high, first, last;
  bool fits = a.size() > 0 && reach(a, 0, &first, &last) && reach(v, offset, &low, &high);
  if (!fits || low < first || high > last)
    throw py::value_error("view: shape " + shape_string(v.shape) + ", strides " + shape_string(v.strides) +
                          ", offset " + std::to_string(offset) + " leave an array of shape " + shape_string(a.shape));
  v.data = a.data + offset * item_size(a.dtype);
  return v;
}

void bind_array(py::module_& m) {
  py::class_<Array>(m, "Array", "A view of a shared buffer: shape and strides in elements, dtype by name.")
      .def_property_readonly("shape", [](const Array& a) { return py::tuple(py::cast(a.shape)); })
      .def_property_readonly("strides", [](const Array& a) { return py::tuple(py::cast(a.strides)); })
      .def_property_readonly("dtype", [](const Array& a) { return std::string(dtype_name(a.dtype)); })
      .def_property_readonly("size", &Array::size)
      .def_property_readonly("nbytes", [](const Array& a) { return a.size() * item_size(a.dtype); })
      .def_property_readonly("contiguous", &Array::contiguous)
      .def_property_readonly("data_ptr", [](const Array& a) { return reinterpret_cast<uintptr_t>(a.data); })
      .def_property_readonly("read_only", [](const Array& a) { return a.read_only; })
      .def_property_readonly(
          "sole", [](const Array& a) { return !a.foreign && a.buffer.use_count() == 1; },
          "Whether no other array, view or NumPy export has this memory.")
      .def("numpy", &to_numpy, "The same memory as a NumPy array; bfloat16 comes as uint16.")
      .def("view", &make_view, py::arg("shape"), py::arg("strides") = py::none(), py::arg("offset") = 0)
      .def(
          "accumulating",
          [](Array a) {
            a.accumulate = 1;
            return a;
          },
          "The same memory as an output that is added to.")
      .def(
          "frozen",
          [](Array a) {
            a.read_only = true;
            return a;
          },
          "The same memory, exported to NumPy read-only.");
  m.def(
      "empty",
      [](std::vector<int64_t> shape, const std::string& dtype) { return empty(std::move(shape), dtype_from(dtype)); },
      py::arg("shape"), py::arg("dtype") = "float32");
  m.def(
      "span", [](const Array& first, std::vector<int64_t> shape) { return reshaped("span", first, std::move(shape)); },
      py::arg("first"), py::arg("shape"),
      "A row-major view that starts where `first` does and runs on into its neighbours; the caller has checked them.");
  m.def("from_numpy", &from_numpy, py::arg("array"), py::arg("bfloat16") = false,
        "Shares the memory of a NumPy array; uint16 is taken as bfloat16 when asked.");
}

}  // namespace gristmill
