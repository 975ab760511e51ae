// Sessions in Python: eval alone and together, sample. Everything that takes time releases the GIL.
#include "runtime/session.h"

#include <pybind11/numpy.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <mutex>

#include "bind/runtime.h"
#include "runtime/sampler.h"

namespace gristmill {

namespace {

using Logits = py::array_t<float, py::array::c_style>;

struct Session {
  std::shared_ptr<Model> model;
  runtime::Session session;
  std::mutex one_at_a_time;
};

std::unique_ptr<Session> new_session(std::shared_ptr<Model> model, int64_t n_ctx) {
  auto s = std::make_unique<Session>();
  s->model = std::move(model);
  runtime::Error error;
  bool ok = false;
  {
    py::gil_scoped_release release;
    ok = s->session.init(&s->model->model, n_ctx, &error);
  }
  if (!ok) raise(error);
  return s;
}

Logits eval(Session& s, const std::vector<int32_t>& ids, bool every) {
  const auto V = static_cast<py::ssize_t>(s.model->model.config().vocab_size);
  const auto n = static_cast<py::ssize_t>(ids.size());
  Logits out = every ? Logits({n, V}) : Logits(V);
  float* logits = out.mutable_data();
  runtime::Error error;
  bool ok = false;
  {
    py::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(s.one_at_a_time);
    ok = s.session.eval(ids.data(), static_cast<int64_t>(n), every, logits, &error);
  }
  if (!ok) raise(error);
  return out;
}

// The list is copied: another thread may change the caller's while the GIL is released. Locks are taken in the order of
// the addresses, so that two steps never wait for each other; a session given twice is locked once and then refused.
Logits eval_batch(const py::typing::List<Session>& sessions, const std::vector<std::vector<int32_t>>& ids) {
  const py::tuple keep(sessions);
  if (keep.size() != ids.size())
    throw py::value_error(std::to_string(keep.size()) + " sessions and " + std::to_string(ids.size()) +
                          " lists of ids given, one list for each session is needed");
  std::vector<runtime::Sequence> sequences;
  std::vector<Session*> order;
  for (size_t i = 0; i < keep.size(); ++i) {
    auto& s = keep[i].cast<Session&>();
    sequences.push_back({&s.session, ids[i].data(), static_cast<int64_t>(ids[i].size())});
    order.push_back(&s);
  }
  std::sort(order.begin(), order.end(), std::less<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  const int64_t V = order.empty() ? 0 : order[0]->model->model.config().vocab_size;
  Logits out({static_cast<py::ssize_t>(keep.size()), static_cast<py::ssize_t>(V)});
  float* logits = out.mutable_data();
  runtime::Error error;
  bool ok = false;
  {
    py::gil_scoped_release release;
    std::vector<std::unique_lock<std::mutex>> locks;
    for (Session* s : order) locks.emplace_back(s->one_at_a_time);
    ok = runtime::Session::eval_batch(sequences.data(), static_cast<int64_t>(sequences.size()), logits, &error);
  }
  if (!ok) raise(error);
  return out;
}

int32_t sample(const Logits& logits, float temperature, int32_t top_k, float top_p, float min_p, uint64_t seed,
               int64_t position) {
  if (logits.ndim() != 1) throw py::value_error("logits must have one dimension, got " + std::to_string(logits.ndim()));
  const float* data = logits.data();
  const auto V = static_cast<int64_t>(logits.size());
  const runtime::Sampling options{temperature, top_k, top_p, min_p, seed};
  runtime::Array<runtime::Candidate> candidates;
  runtime::Error error;
  int32_t id = -1;
  bool ok = false;
  {
    py::gil_scoped_release release;
    ok = runtime::sample(data, V, options, position, &candidates, &id, &error);
  }
  if (!ok) raise(error);
  return id;
}

}  // namespace

void bind_session(py::module_& m) {
  py::class_<Session>(m, "Session", "A key-value cache of n_ctx tokens and the forward pass of its model.")
      .def(py::init(&new_session), py::arg("model"), py::arg("n_ctx"))
      .def(
          "eval", [](Session& s, const std::vector<int32_t>& ids) { return eval(s, ids, false); }, py::arg("ids"),
          "Appends ids; logits (V,) of the last.")
      .def(
          "eval_all", [](Session& s, const std::vector<int32_t>& ids) { return eval(s, ids, true); }, py::arg("ids"),
          "Appends ids; logits (n, V) of each.")
      .def(
          "truncate",
          [](Session& s, int64_t n) {
            runtime::Error error;
            const std::lock_guard<std::mutex> lock(s.one_at_a_time);
            if (!s.session.truncate(n, &error)) raise(error);
          },
          py::arg("n"), "Keeps the first n tokens.")
      .def_property_readonly("length", [](const Session& s) { return s.session.length(); })
      .def_property_readonly("n_ctx", [](const Session& s) { return s.session.n_ctx(); });
  m.def("eval_batch", &eval_batch, py::arg("sessions"), py::arg("ids"),
        "Appends ids[i] to sessions[i], all of one model and each given once; logits (n, V) of the last id of each,\n"
        "with the bits of sessions[i].eval(ids[i]). Raises ValueError naming the sequence; then none has changed.");
  m.def(
      "fused", [](const std::string& entry) { return fused(entry.c_str()); }, py::arg("entry"),
      "Whether an entry may be used: it is there, and no plain entry it contains was replaced.");
  m.def("sample", &sample, py::arg("logits").noconvert(), py::arg("temperature"), py::arg("top_k"), py::arg("top_p"),
        py::arg("min_p"), py::arg("seed"), py::arg("position"),
        "Draws a token id from logits (V,); a pure function of its arguments.");
}

}  // namespace gristmill
