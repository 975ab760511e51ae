// gristmill-run: generate from a GGUF file, on the C interface alone.
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "gristmill.h"

namespace {

constexpr const char* kUsage =
    "usage: gristmill-run MODEL.gguf -p TEXT [--suffix TEXT] [-n TOKENS] [--temp T] [--top-k K] [--top-p P]\n"
    "                     [--min-p P] [--seed N] [--ctx N] [--stats] [--ids] [--selftest] [--no-verify]\n"
    "  -n 128 tokens at most; --temp 0 takes the most probable token; --suffix fills in the middle;\n"
    "  --stats prints size, memory and speed; --ids prints token ids; --selftest checks the file and exits\n";

struct Options {
  const char* model = nullptr;
  const char* prompt = nullptr;
  const char* suffix = nullptr;
  int64_t tokens = 128, context = 0;
  gristmill_sampling sampling = {sizeof(gristmill_sampling), 0.0f, 0, 1.0f, 0.0f, 0, 0};
  bool stats = false, ids = false, selftest = false, verify = true;
};

int usage(const char* why, const char* what) {
  std::fprintf(stderr, "gristmill-run: %s%s\n%s", why, what, kUsage);
  return 2;
}

bool read_int(const char* text, int64_t least, int64_t* out) {
  char* end = nullptr;
  const long long n = std::strtoll(text, &end, 10);
  *out = n;
  return end != text && *end == 0 && n >= least;
}

bool read_float(const char* text, float* out) {
  char* end = nullptr;
  *out = std::strtof(text, &end);
  return end != text && *end == 0;
}

bool flag(const char* name, Options* o) {
  const bool stats = !std::strcmp(name, "--stats"), ids = !std::strcmp(name, "--ids");
  const bool selftest = !std::strcmp(name, "--selftest"), no_verify = !std::strcmp(name, "--no-verify");
  o->stats = o->stats || stats, o->ids = o->ids || ids;
  o->selftest = o->selftest || selftest, o->verify = o->verify && !no_verify;
  return stats || ids || selftest || no_verify;
}

// False where the option is unknown or its value is not allowed.
bool option(const char* name, const char* value, Options* o) {
  int64_t n = 0;
  if (!std::strcmp(name, "-p")) return o->prompt = value, true;
  if (!std::strcmp(name, "--suffix")) return o->suffix = value, true;
  if (!std::strcmp(name, "-n")) return read_int(value, 0, &o->tokens);
  if (!std::strcmp(name, "--ctx")) return read_int(value, 1, &o->context);
  if (!std::strcmp(name, "--temp")) return read_float(value, &o->sampling.temperature);
  if (!std::strcmp(name, "--top-p")) return read_float(value, &o->sampling.top_p);
  if (!std::strcmp(name, "--min-p")) return read_float(value, &o->sampling.min_p);
  const bool seed = !std::strcmp(name, "--seed"), top_k = !std::strcmp(name, "--top-k");
  if ((!seed && !top_k) || !read_int(value, 0, &n) || (top_k && n > INT32_MAX)) return false;
  if (seed)
    o->sampling.seed = static_cast<uint64_t>(n);
  else
    o->sampling.top_k = static_cast<int32_t>(n);
  return true;
}

double seconds() {
  struct timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Run {
  gristmill_model* model = nullptr;
  gristmill_session* session = nullptr;
  float* logits = nullptr;
  int32_t* ids = nullptr;
  int64_t capacity = 0, n = 0;
  gristmill_error error = {sizeof(gristmill_error), 0, -1, {}};
  ~Run() {
    std::free(ids);
    std::free(logits);
    gristmill_session_close(session);
    gristmill_model_close(model);
  }
  bool push(int32_t id) {
    if (n == capacity) return false;
    ids[n++] = id;
    return true;
  }
  bool add(const char* text, int special) {
    int64_t count = 0;
    const auto bytes = static_cast<int64_t>(std::strlen(text));
    if (gristmill_tokenize(model, text, bytes, special, ids + n, capacity - n, &count, &error)) return false;
    n += count;
    return true;
  }
};

// The ids that `gristmill generate` and the server make of the same text.
bool build_prompt(const Options& o, Run* r) {
  bool room = !gristmill_add_bos(r->model) || r->push(gristmill_bos_id(r->model));
  if (o.suffix == nullptr) {
    if (!r->add(o.prompt, 1)) return false;
    const int32_t eos = gristmill_eos_id(r->model);
    if (r->n == 0) r->push(eos < 0 ? 0 : eos);  // an empty text begins where another has ended
  } else {
    const int32_t prefix = gristmill_fim_prefix_id(r->model), suffix = gristmill_fim_suffix_id(r->model),
                  middle = gristmill_fim_middle_id(r->model);
    if (prefix < 0 || suffix < 0 || middle < 0) {
      std::snprintf(r->error.text, sizeof r->error.text, "this model has no fill-in-the-middle tokens");
      return false;
    }
    const bool spm = gristmill_fim_suffix_first(r->model) != 0;
    room = room && r->push(prefix);
    if (!spm && !r->add(o.prompt, 0)) return false;
    room = room && r->push(suffix);
    if (!r->add(o.suffix, 0)) return false;
    room = room && r->push(middle);
    if (spm && !r->add(o.prompt, 0)) return false;
  }
  if (!room) std::snprintf(r->error.text, sizeof r->error.text, "the prompt is longer than the context");
  return room;
}

void print_token(const Run& r, int32_t id, bool as_id) {
  const char* text = nullptr;
  int64_t bytes = 0;
  if (as_id)
    std::printf("%d ", id);
  else if (gristmill_token_bytes(r.model, id, &text, &bytes) == GRISTMILL_OK)
    std::fwrite(text, 1, static_cast<size_t>(bytes), stdout);
  std::fflush(stdout);
}

void print_stats(const Options& o, const Run& r, int64_t context, int64_t generated, const double* times) {
  struct stat file{};
  struct rusage used{};
  stat(o.model, &file);
  getrusage(RUSAGE_SELF, &used);
  int64_t plan = 0;
  gristmill_plan(r.model, context, &plan, nullptr);
  const double mb = 1024.0 * 1024.0;
  const double weights = static_cast<double>(file.st_size) / mb, session = static_cast<double>(plan) / mb;
  const double peak = static_cast<double>(used.ru_maxrss) / 1024.0;
  std::fprintf(stderr, "\nfile %.2f MB, session of %lld tokens %.2f MB, peak memory %.2f MB = both + %.2f MB\n",
               weights, static_cast<long long>(context), session, peak, peak - weights - session);
  std::fprintf(stderr, "load %.3f s, prompt %lld tokens %.1f tok/s, generated %lld tokens %.1f tok/s\n", times[0],
               static_cast<long long>(r.n), static_cast<double>(r.n) / times[1], static_cast<long long>(generated),
               times[2] > 0.0 ? static_cast<double>(generated) / times[2] : 0.0);
}

int fail(const char* what, const Run& r) {
  std::fprintf(stderr, "gristmill-run: %s: %s\n", what, r.error.text);
  return 1;
}

int generate(const Options& o, Run* r, double load_seconds) {
  const int64_t trained = gristmill_context_length(r->model);
  const int64_t context = o.context == 0 ? trained : o.context;
  r->capacity = context;
  r->ids = static_cast<int32_t*>(std::malloc(sizeof(int32_t) * static_cast<size_t>(context)));
  r->logits = static_cast<float*>(std::malloc(sizeof(float) * static_cast<size_t>(gristmill_vocab_size(r->model))));
  if (r->ids == nullptr || r->logits == nullptr) return std::fprintf(stderr, "gristmill-run: out of memory\n"), 1;
  if (gristmill_session_new(&r->session, r->model, context, &r->error)) return fail("context", *r);
  if (!build_prompt(o, r)) return fail("prompt", *r);
  double times[3] = {load_seconds, 0.0, 0.0};
  double start = seconds();
  if (gristmill_eval(r->session, r->ids, r->n, r->logits, &r->error)) return fail("prompt", *r);
  times[1] = seconds() - start;
  start = seconds();
  int64_t generated = 0;
  for (; generated < o.tokens; ++generated) {
    int32_t id = 0;
    const int64_t at = gristmill_session_length(r->session);
    if (gristmill_sample(r->session, r->logits, &o.sampling, at, &id, &r->error)) return fail("sampling", *r);
    if (gristmill_is_end(r->model, id)) break;
    print_token(*r, id, o.ids);
    if (generated + 1 == o.tokens) continue;
    if (at == context) break;
    if (gristmill_eval(r->session, &id, 1, r->logits, &r->error)) return fail("generation", *r);
  }
  times[2] = seconds() - start;
  std::printf("\n");
  if (o.stats) print_stats(o, *r, context, generated, times);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--help") || !std::strcmp(argv[i], "-h")) return std::printf("%s", kUsage), 0;
    if (argv[i][0] != '-' && o.model == nullptr)
      o.model = argv[i];
    else if (flag(argv[i], &o))
      continue;
    else if (i + 1 >= argc || !option(argv[i], argv[i + 1], &o))
      return usage("unknown or bad option ", argv[i]);
    else
      ++i;
  }
  if (o.model == nullptr) return usage("no model given", "");
  if (o.prompt == nullptr && !o.selftest) return usage("no prompt given (-p)", "");
  Run r;
  const double start = seconds();
  if (gristmill_model_open(&r.model, o.model, o.verify ? 1 : 0, &r.error)) return fail(o.model, r);
  if (!o.selftest) return generate(o, &r, seconds() - start);
  int64_t count = 0;
  if (gristmill_selftest(r.model, &count, &r.error)) return fail("self-test", r);
  std::printf("self-test: %lld prompts give the stored tokens\n", static_cast<long long>(count));
  return 0;
}
