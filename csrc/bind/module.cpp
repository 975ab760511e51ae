// gristmill._C: the tables, their contract, and every op of bind/.
#include "bind/array.h"
#include "core/memory.h"
#include "core/parallel.h"

namespace gristmill {

const char* cuda_absent_reason();

namespace {

py::dict describe(const std::string& entry) {
  py::list fields;
  for (int i = 0; i < field_count(); ++i) {
    FieldInfo f = field(i);
    if (entry == f.entry) {
      py::dict d;
      d["name"] = f.name, d["type"] = f.type, d["offset"] = f.offset, d["size"] = f.size, d["meaning"] = f.meaning;
      fields.append(d);
    }
  }
  if (fields.empty()) throw py::key_error("no entry '" + entry + "' in the kernel contract; see _C.entries()");
  py::dict out;
  out["fields"] = fields;
  return out;
}

py::list entry_list() {
  py::list out;
  for (int i = 0; i < entry_count(); ++i) {
    py::dict d;
    d["name"] = entry_name(i), d["contains"] = entry_contains(i);
    d["replaced"] = entry_replaced(i), d["present"] = entry_present(i);
    out.append(d);
  }
  return out;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "gristmill's kernels: tables of functions by instruction set, and arrays to call them on";
  if (const char* why = environment_error()) throw std::runtime_error(why);
  bind_array(m);
  for (Binding* b = Binding::first(); b; b = b->next) b->bind(m);
  m.def(
      "tables",
      [] {
        std::vector<std::string> names;
        for (int i = 0; i < table_count(); ++i) names.emplace_back(table_name(i));
        return names;
      },
      "Tables this machine can run, best first.");
  m.def("table", [] { return std::string(kernels()->name); });
  m.def("table_reason", [] { return std::string(table_reason()); });
  m.def("cuda_absent_reason", [] { return std::string(cuda_absent_reason()); });
  m.def(
      "select",
      [](const std::string& name) {
        if (!table_select(name.c_str()))
          throw py::value_error("table '" + name + "' is not usable here; see _C.tables()");
      },
      py::arg("name"), "Use another table; forgets replaced entries.");
  m.def(
      "swap",
      [](const std::string& entry, std::optional<uintptr_t> address, std::optional<uintptr_t> workspace) {
        auto pointer = [](std::optional<uintptr_t> x) { return reinterpret_cast<void*>(x.value_or(0)); };
        if (!table_swap(entry.c_str(), pointer(address), pointer(workspace)))
          throw py::key_error("no entry '" + entry + "' in the kernel contract; see _C.entries()");
      },
      py::arg("entry"), py::arg("address"), py::arg("workspace") = py::none(),
      "Replace one entry by a function address, and its <entry>_workspace (None: it needs none); no address restores "
      "the "
      "table's own two.");
  m.def("entries", &entry_list);
  m.def("describe", &describe, py::arg("entry"),
        "Fields of an entry's argument struct, of View or of Context, with offsets in bytes.");
  m.def("abi", [] { return kernel_abi(); }, "Hash of the argument structs; a user's kernel is checked against it.");
  m.def("threads", &pool_threads);
  m.def(
      "set_threads",
      [](int n) {
        if (n < 1) throw py::value_error("threads must be at least 1, got " + std::to_string(n));
        pool_set_threads(n);
      },
      py::arg("n"));
  m.def("memory_stats", [] {
    MemoryStats s = memory_stats();
    py::dict d;
    d["in_use"] = s.in_use, d["cached"] = s.cached, d["peak"] = s.peak;
    return d;
  });
  m.def("memory_empty_cache", &memory_empty_cache, py::call_guard<py::gil_scoped_release>());
}

}  // namespace gristmill
