// A model in Python: a GGUF file or live tensors, its tokenizer, its self-test. Everything that takes time releases the
// GIL.
#include "bind/runtime.h"

#include "runtime/selftest.h"

namespace gristmill {

namespace {

py::str text(runtime::Str s) {  // a damaged file may hold any bytes
  PyObject* p = PyUnicode_DecodeUTF8(s.data, static_cast<py::ssize_t>(s.size), "replace");
  if (p == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(p);
}

py::object number(const runtime::Gguf& file, const runtime::Value& v, int64_t i) {
  int64_t n = 0;
  double x = 0.0;
  const bool whole = file.as_int(v, i, &n);
  if (v.type == runtime::ValueType::boolean) return py::bool_(n != 0);
  if (whole) return py::int_(n);
  if (v.type == runtime::ValueType::u64) return py::int_(static_cast<uint64_t>(n));
  file.as_double(v, i, &x);
  return py::float_(x);
}

py::object value(const runtime::Gguf& file, const runtime::Value& v) {
  int64_t at = v.offset;
  const bool string = v.type == runtime::ValueType::string;
  if (!v.is_array) return string ? py::object(text(file.next_string(&at))) : number(file, v, 0);
  py::list list;
  for (int64_t i = 0; i < v.count; ++i)
    list.append(string ? py::object(text(file.next_string(&at))) : number(file, v, i));
  return list;
}

py::object metadata(Model& m) {
  if (!m.metadata.is_none()) return m.metadata;
  py::dict all;
  for (const runtime::Value& v : m.model.file().values()) all[text(v.key)] = value(m.model.file(), v);
  return m.metadata = all;
}

std::shared_ptr<Model> open_model(const std::string& path, bool verify) {
  auto m = std::make_shared<Model>();
  runtime::Error error;
  bool ok = false;
  {
    py::gil_scoped_release release;
    ok = m->model.open(path.c_str(), verify, &error);
  }
  if (!ok) raise(error);
  return m;
}

// Hugging Face's names, which differ between the architectures.
runtime::Config config_from(const py::dict& config) {
  const auto given = [&](const char* key) { return config.contains(key) && !config[key].is_none(); };
  const auto get = [&](const char* key) -> py::object {
    if (!config.contains(key)) throw py::value_error(std::string("config has no ") + key);
    return config[key];
  };
  const auto size = [&](const char* key) { return get(key).cast<int64_t>(); };
  const auto name = given("model_type") ? get("model_type").cast<std::string>() : std::string("llama");
  runtime::Config c;
  c.architecture = runtime::find_architecture(runtime::str(name.c_str()));
  if (c.architecture == nullptr)
    throw py::value_error("model_type '" + name + "' is not supported, " + runtime::architecture_names());
  c.vocab_size = size("vocab_size");
  if (name == "gpt2") {
    const auto activation = given("activation_function") ? get("activation_function").cast<std::string>() : "gelu_new";
    if (activation != "gelu_new" && activation != "gelu")
      throw py::value_error("activation_function '" + activation + "' is not supported, 'gelu_new' and 'gelu' are");
    c.gelu_tanh = activation == "gelu_new";
    c.hidden_size = size("n_embd"), c.n_layers = size("n_layer"), c.n_heads = size("n_head");
    c.intermediate_size = given("n_inner") ? size("n_inner") : 4 * c.hidden_size;
    c.n_kv_heads = c.n_heads, c.head_dim = c.n_heads < 1 ? 0 : c.hidden_size / c.n_heads;
    c.n_ctx = size("n_positions"), c.norm_eps = get("layer_norm_epsilon").cast<float>();
    return c;
  }
  c.hidden_size = size("hidden_size"), c.n_layers = size("num_hidden_layers"), c.n_heads = size("num_attention_heads");
  c.intermediate_size = size("intermediate_size");
  c.n_kv_heads = size("num_key_value_heads"), c.head_dim = size("head_dim"), c.n_ctx = size("max_position_embeddings");
  c.norm_eps = get("rms_norm_eps").cast<float>(), c.rope_theta = get("rope_theta").cast<float>();
  return c;
}

std::shared_ptr<Model> from_tensors(const py::dict& config, const std::map<std::string, Array>& tensors) {
  const runtime::Config c = config_from(config);
  auto m = std::make_shared<Model>();
  std::vector<runtime::NamedView> views;
  for (const auto& [name, array] : tensors) {
    runtime::NamedView v{name.c_str(), view(array), static_cast<int32_t>(array.shape.size()), {}};
    for (size_t i = 0; i < array.shape.size(); ++i) v.shape[i] = array.shape[i];
    views.push_back(v);
    m->keep.push_back(array.buffer);
  }
  runtime::Error error;
  if (!m->model.from_views(c, views.data(), static_cast<int64_t>(views.size()), &error)) raise(error);
  return m;
}

const runtime::Tokenizer& tokenizer(const Model& m) {
  if (!m.model.tokenizer().loaded()) throw py::value_error("this model has no tokenizer");
  return m.model.tokenizer();
}

std::vector<int32_t> tokenize(const Model& m, std::string_view bytes, bool special) {
  const runtime::Tokenizer& t = tokenizer(m);
  runtime::Array<int32_t> ids;
  bool ok = false;
  {
    py::gil_scoped_release release;
    ok = t.encode({bytes.data(), static_cast<int64_t>(bytes.size())}, special, &ids);
  }
  if (!ok) throw std::bad_alloc();
  return {ids.begin(), ids.end()};
}

std::string token_bytes(const Model& m, int64_t id) {
  const runtime::Tokenizer& t = tokenizer(m);
  if (id < 0 || id >= t.vocab_size())
    throw py::value_error("token id " + std::to_string(id) + " is outside 0 to " + std::to_string(t.vocab_size()) +
                          " - 1");
  const runtime::Str s = t.token_bytes(id);
  return {s.data, static_cast<size_t>(s.size)};
}

std::string digest(Model& m) {
  if (!m.digest.empty() || m.model.file().size() == 0) return m.digest;
  char hex[65];
  {
    py::gil_scoped_release release;
    m.model.file().digest(hex);
  }
  return m.digest = hex;
}

int64_t selftest(const Model& m) {
  runtime::Error error;
  int64_t count = 0;
  bool ok = false;
  {
    py::gil_scoped_release release;
    ok = runtime::selftest(m.model, &count, &error);
  }
  if (!ok) raise(error);
  return count;
}

std::string architecture(const Model& m) { return m.model.config().architecture->name; }

}  // namespace

GM_BIND(runtime) {
  py::class_<Model, std::shared_ptr<Model>>(m, "Model", "Weights and tokenizer of a GGUF file, or live tensors.")
      .def(py::init(&open_model), py::arg("path"), py::arg("verify") = true,
           "Maps a GGUF file; raises ValueError with reason and byte offset.")
      .def_static("from_tensors", &from_tensors, py::arg("config"), py::arg("tensors"),
                  "A model on live arrays under Hugging Face's names, without copy and without tokenizer.")
      .def_property_readonly("metadata", &metadata)
      .def_property_readonly("architecture", &architecture)
      .def_property_readonly("vocab_size", [](const Model& a) { return a.model.config().vocab_size; })
      .def_property_readonly("n_ctx", [](const Model& a) { return a.model.config().n_ctx; })
      .def_property_readonly("digest", &digest, "sha256 of the whole file; empty for live tensors.")
      .def_property_readonly("bos_id", [](const Model& a) { return a.model.tokenizer().bos_id; })
      .def_property_readonly("eos_id", [](const Model& a) { return a.model.tokenizer().eos_id; })
      .def("selftest", &selftest, "Compares the vectors the file carries; returns how many, raises where one differs.")
      .def(
          "tokenize", [](const Model& a, const py::bytes& b, bool special) { return tokenize(a, b, special); },
          py::arg("text"), py::arg("special"))
      .def(
          "token_bytes", [](const Model& a, int64_t id) { return py::bytes(token_bytes(a, id)); }, py::arg("id"))
      .def(
          "detokenize",
          [](const Model& a, const std::vector<int64_t>& ids) {
            std::string out;
            for (const int64_t id : ids) out += token_bytes(a, id);
            return py::bytes(out);
          },
          py::arg("ids"));
  bind_session(m);
}

}  // namespace gristmill
