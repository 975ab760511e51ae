// gristmill.h on the C++ runtime.
#include <new>

#include "backend.h"
#include "gristmill.h"
#include "sampler.h"
#include "selftest.h"

using gristmill::runtime::Array;
using gristmill::runtime::Candidate;
using gristmill::runtime::Error;
using gristmill::runtime::Model;
using gristmill::runtime::Sampling;
using gristmill::runtime::Sequence;
using gristmill::runtime::Session;
using gristmill::runtime::Str;

struct gristmill_model {
  Model model;
};
struct gristmill_session {
  Session session;
  Array<Candidate> candidates;
};

namespace {

// Not operator new: the library must link without libstdc++.
template <class T>
T* create() {
  void* p = std::malloc(sizeof(T));
  return p == nullptr ? nullptr : new (p) T;
}

template <class T>
void destroy(T* object) {
  if (object == nullptr) return;
  object->~T();
  std::free(object);
}

int report(gristmill_error* to, const Error& from, int code) {
  if (from.memory) code = GRISTMILL_NO_MEMORY;
  if (to == nullptr || to->struct_size < sizeof(gristmill_error)) return code;
  to->offset = from.offset;
  static_assert(sizeof to->text == sizeof from.text);
  std::memcpy(to->text, from.text, sizeof to->text);
  return code;
}

int report(gristmill_error* to, const char* text, int code) {
  Error e;
  gristmill::runtime::fail(&e, -1, "%s", text);
  return report(to, e, code);
}

int open_model(gristmill_model** out, const char* path, const void* data, int64_t bytes, int verify,
               gristmill_error* error) {
  if (out == nullptr) return report(error, "model is NULL", GRISTMILL_BAD_ARGUMENT);
  *out = nullptr;
  if (const char* why = gristmill::environment_error()) return report(error, why, GRISTMILL_BAD_ARGUMENT);
  if (path == nullptr && (data == nullptr || bytes < 1))
    return report(error, "neither a path nor bytes are given", GRISTMILL_BAD_ARGUMENT);
  auto* m = create<gristmill_model>();
  if (m == nullptr) return report(error, "out of memory", GRISTMILL_NO_MEMORY);
  Error e;
  const bool ok =
      path != nullptr ? m->model.open(path, verify != 0, &e) : m->model.open_memory(data, bytes, verify != 0, &e);
  if (ok) return *out = m, GRISTMILL_OK;
  destroy(m);
  return report(error, e, GRISTMILL_BAD_FILE);
}

}  // namespace

extern "C" {

uint32_t gristmill_abi_version(void) { return GRISTMILL_ABI_VERSION; }

int gristmill_model_open(gristmill_model** model, const char* path, int verify, gristmill_error* error) {
  if (path == nullptr) return report(error, "path is NULL", GRISTMILL_BAD_ARGUMENT);
  return open_model(model, path, nullptr, 0, verify, error);
}

int gristmill_model_open_memory(gristmill_model** model, const void* data, int64_t bytes, int verify,
                                gristmill_error* error) {
  return open_model(model, nullptr, data, bytes, verify, error);
}

void gristmill_model_close(gristmill_model* model) { destroy(model); }

int64_t gristmill_vocab_size(const gristmill_model* m) { return m->model.config().vocab_size; }
int64_t gristmill_context_length(const gristmill_model* m) { return m->model.config().n_ctx; }
int32_t gristmill_bos_id(const gristmill_model* m) { return static_cast<int32_t>(m->model.tokenizer().bos_id); }
int32_t gristmill_eos_id(const gristmill_model* m) { return static_cast<int32_t>(m->model.tokenizer().eos_id); }
int32_t gristmill_fim_prefix_id(const gristmill_model* m) {
  return static_cast<int32_t>(m->model.tokenizer().fim_prefix_id);
}
int32_t gristmill_fim_suffix_id(const gristmill_model* m) {
  return static_cast<int32_t>(m->model.tokenizer().fim_suffix_id);
}
int32_t gristmill_fim_middle_id(const gristmill_model* m) {
  return static_cast<int32_t>(m->model.tokenizer().fim_middle_id);
}
int gristmill_add_bos(const gristmill_model* m) {
  return m->model.tokenizer().add_bos && m->model.tokenizer().bos_id >= 0 ? 1 : 0;
}
int gristmill_is_end(const gristmill_model* m, int32_t id) { return m->model.tokenizer().is_end(id) ? 1 : 0; }
int gristmill_fim_suffix_first(const gristmill_model* m) { return m->model.tokenizer().fim_suffix_first ? 1 : 0; }
void gristmill_digest(const gristmill_model* m, char hex[65]) { m->model.file().digest(hex); }

int gristmill_selftest(const gristmill_model* m, int64_t* count, gristmill_error* error) {
  Error e;
  int64_t compared = 0;
  const bool ok = gristmill::runtime::selftest(m->model, &compared, &e);
  if (count != nullptr) *count = compared;
  return ok ? GRISTMILL_OK : report(error, e, GRISTMILL_BAD_FILE);
}

int gristmill_tokenize(const gristmill_model* m, const char* text, int64_t bytes, int special, int32_t* ids,
                       int64_t capacity, int64_t* count, gristmill_error* error) {
  if ((text == nullptr && bytes != 0) || bytes < 0 || capacity < 0 || count == nullptr ||
      (ids == nullptr && capacity > 0))
    return report(error, "text, ids and count must be given, sizes must not be negative", GRISTMILL_BAD_ARGUMENT);
  *count = 0;
  if (!m->model.tokenizer().loaded()) return report(error, "the model has no tokenizer", GRISTMILL_BAD_ARGUMENT);
  Array<int32_t> found;
  if (!m->model.tokenizer().encode({text, bytes}, special != 0, &found))
    return report(error, "out of memory for the ids", GRISTMILL_NO_MEMORY);
  *count = found.size();
  if (found.size() > capacity)
    return report(error, "the text has more tokens than there is room for", GRISTMILL_NO_ROOM);
  if (found.size() > 0) std::memcpy(ids, found.data(), static_cast<size_t>(found.size()) * sizeof(int32_t));
  return GRISTMILL_OK;
}

int gristmill_token_bytes(const gristmill_model* m, int32_t id, const char** data, int64_t* bytes) {
  if (id < 0 || id >= m->model.tokenizer().vocab_size()) return GRISTMILL_BAD_ARGUMENT;
  const Str s = m->model.tokenizer().token_bytes(id);
  *data = s.data, *bytes = s.size;
  return GRISTMILL_OK;
}

int gristmill_plan(const gristmill_model* m, int64_t n_ctx, int64_t* bytes, gristmill_error* error) {
  if (n_ctx < 1 || n_ctx > m->model.config().n_ctx)
    return report(error, "n_ctx is outside 1 to the model's context length", GRISTMILL_BAD_ARGUMENT);
  *bytes = Session::plan(m->model, n_ctx);
  return GRISTMILL_OK;
}

int gristmill_session_new(gristmill_session** out, const gristmill_model* model, int64_t n_ctx,
                          gristmill_error* error) {
  if (out == nullptr || model == nullptr) return report(error, "session or model is NULL", GRISTMILL_BAD_ARGUMENT);
  *out = nullptr;
  auto* s = create<gristmill_session>();
  if (s == nullptr) return report(error, "out of memory", GRISTMILL_NO_MEMORY);
  Error e;
  if (s->session.init(&model->model, n_ctx, &e)) return *out = s, GRISTMILL_OK;
  destroy(s);
  return report(error, e, GRISTMILL_BAD_ARGUMENT);
}

void gristmill_session_close(gristmill_session* session) { destroy(session); }
int64_t gristmill_session_length(const gristmill_session* session) { return session->session.length(); }

int gristmill_session_truncate(gristmill_session* session, int64_t n, gristmill_error* error) {
  Error e;
  return session->session.truncate(n, &e) ? GRISTMILL_OK : report(error, e, GRISTMILL_BAD_ARGUMENT);
}

int gristmill_eval(gristmill_session* session, const int32_t* ids, int64_t n, float* logits, gristmill_error* error) {
  if (n > session->session.n_ctx() - session->session.length())
    return report(error, "the tokens do not fit the context", GRISTMILL_NO_ROOM);
  Error e;
  return session->session.eval(ids, n, false, logits, &e) ? GRISTMILL_OK : report(error, e, GRISTMILL_BAD_ARGUMENT);
}

int gristmill_eval_batch(const gristmill_sequence* sequences, int64_t count, float* logits, gristmill_error* error) {
  Array<Sequence> parts;
  bool room = true;
  for (int64_t i = 0; i < count; ++i) {
    const gristmill_sequence& s = sequences[i];
    if (s.session == nullptr) return report(error, "a session is NULL", GRISTMILL_BAD_ARGUMENT);
    if (!parts.push({&s.session->session, s.ids, s.n})) return report(error, "out of memory", GRISTMILL_NO_MEMORY);
    room = room && s.n <= s.session->session.n_ctx() - s.session->session.length();
  }
  Error e;
  const bool ok = Session::eval_batch(parts.data(), count, logits, &e);
  return ok ? GRISTMILL_OK : report(error, e, room ? GRISTMILL_BAD_ARGUMENT : GRISTMILL_NO_ROOM);
}

int gristmill_sample(gristmill_session* session, const float* logits, const gristmill_sampling* o, int64_t position,
                     int32_t* id, gristmill_error* error) {
  if (o == nullptr || o->struct_size < sizeof(gristmill_sampling))
    return report(error, "sampling.struct_size is not set", GRISTMILL_BAD_ARGUMENT);
  const Sampling options{o->temperature, o->top_k, o->top_p, o->min_p, o->seed};
  Error e;
  const int64_t V = session->session.model().config().vocab_size;
  const bool ok = gristmill::runtime::sample(logits, V, options, position, &session->candidates, id, &e);
  return ok ? GRISTMILL_OK : report(error, e, GRISTMILL_BAD_ARGUMENT);
}

}  // extern "C"
