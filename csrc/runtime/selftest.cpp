#include "selftest.h"

#include "sampler.h"

namespace gristmill::runtime {
namespace {

// Reads "[1, 2, 3]".
bool parse_ids(Str text, Array<int32_t>* ids) {
  ids->clear();
  int64_t at = 0;
  const auto skip = [&] {
    while (at < text.size && text.data[at] == ' ') ++at;
  };
  skip();
  if (at == text.size || text.data[at++] != '[') return false;
  while (at < text.size && text.data[at] != ']') {
    skip();
    int64_t id = 0, digits = 0;
    for (; at < text.size && text.data[at] >= '0' && text.data[at] <= '9' && digits < 10; ++at, ++digits)
      id = id * 10 + (text.data[at] - '0');
    if (digits == 0 || id > INT32_MAX || !ids->push(static_cast<int32_t>(id))) return false;
    skip();
    if (at < text.size && text.data[at] == ',')
      ++at;
    else if (at < text.size && text.data[at] != ']')
      return false;
  }
  return at + 1 == text.size;
}

bool run_vector(Session* session, const Array<int32_t>& prompt, const Array<int32_t>& expected, int64_t number,
                Array<float>* logits, Error* error) {
  if (!session->truncate(0, error) || !session->eval(prompt.data(), prompt.size(), false, logits->data(), error))
    return false;
  Array<Candidate> none;
  const Sampling greedy{.temperature = 0.0f};
  for (int64_t i = 0; i < expected.size(); ++i) {
    int32_t id = 0;
    if (!sample(logits->data(), logits->size(), greedy, 0, &none, &id, error)) return false;
    if (id != expected[i])
      return fail(error, -1,
                  "prompt %lld gives token %d at step %lld, the file says %d: the file or this build is wrong",
                  static_cast<long long>(number), id, static_cast<long long>(i), expected[i]);
    if (i + 1 < expected.size() && !session->eval(&id, 1, false, logits->data(), error)) return false;
  }
  return true;
}

}  // namespace

bool selftest(const Model& model, int64_t* count, Error* error) {
  *count = 0;
  const Gguf& file = model.file();
  const Value* prompts = file.find("gristmill.selftest.prompts");
  const Value* answers = file.find("gristmill.selftest.ids");
  if (prompts == nullptr && answers == nullptr) return true;
  if (prompts == nullptr || answers == nullptr || !prompts->is_array || !answers->is_array ||
      prompts->type != ValueType::string || answers->type != ValueType::string || prompts->count != answers->count)
    return fail(error, -1, "the self-test's prompts and ids do not belong together");
  if (!model.tokenizer().loaded()) return fail(error, -1, "a self-test needs a tokenizer");
  Session session;
  Array<float> logits;
  Array<int32_t> ids, expected;
  if (!session.init(&model, model.config().n_ctx, error)) return false;
  if (!logits.resize(model.config().vocab_size)) return no_memory(error, "the logits");
  int64_t prompt_at = prompts->offset, answer_at = answers->offset;
  for (int64_t i = 0; i < prompts->count; ++i) {
    const int64_t here = answer_at;
    ids.clear();
    if (!model.tokenizer().encode(file.next_string(&prompt_at), true, &ids)) return no_memory(error, "a prompt");
    if (!parse_ids(file.next_string(&answer_at), &expected))
      return fail(error, here, "stored ids of prompt %lld are no list of numbers", static_cast<long long>(i));
    if (ids.size() == 0 || ids.size() + expected.size() > model.config().n_ctx) continue;
    if (!run_vector(&session, ids, expected, i, &logits, error)) return false;
    ++*count;
  }
  return true;
}

}  // namespace gristmill::runtime
