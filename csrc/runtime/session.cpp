#include "session.h"

#include <sys/mman.h>

#include "rope_table.h"

namespace gristmill::runtime {
namespace {

long long number(int64_t n) { return static_cast<long long>(n); }

bool cache_fits(const Config& c, int64_t n_ctx) {  // in double: a damaged file may make the product overflow
  const double rows = static_cast<double>(c.n_layers) * static_cast<double>(n_ctx);
  return rows * static_cast<double>(c.n_kv_heads) * static_cast<double>(c.head_dim) < 1e14;
}

}  // namespace

Session::~Session() {
  if (block_ != nullptr) munmap(block_, static_cast<size_t>(block_bytes_));
}

void Session::place(Placer* p, const Config& c) {
  const int64_t rows = c.n_layers * cache_.n_ctx, G = c.n_kv_heads * c.head_dim;
  scratch_.place(c, p);
  if (c.architecture->rotary)
    cache_.cos = p->floats(cache_.n_ctx, c.head_dim / 2), cache_.sin = p->floats(cache_.n_ctx, c.head_dim / 2);
  cache_.keys = p->floats(rows, G), cache_.values = p->floats(rows, G);
}

int64_t Session::plan(const Model& model, int64_t n_ctx) {
  if (!cache_fits(model.config(), n_ctx)) return INT64_MAX;
  Session unused;
  unused.cache_.n_ctx = n_ctx;
  unused.scratch_.workspace_bytes = workspace_bytes(model, n_ctx);
  Placer count(nullptr);
  unused.place(&count, model.config());
  return count.used();
}

bool Session::init(const Model* model, int64_t n_ctx, Error* error) {
  const Config& c = model->config();
  if (n_ctx < 1 || n_ctx > c.n_ctx)
    return fail(error, -1, "context of %lld tokens given, this model allows 1 to %lld", number(n_ctx), number(c.n_ctx));
  if (!cache_fits(c, n_ctx)) return no_memory(error, "the cache: with so many tokens it is larger than any memory");
  model_ = model, cache_.n_ctx = n_ctx;
  scratch_.workspace_bytes = workspace_bytes(*model, n_ctx);
  Placer count(nullptr);
  place(&count, c);
  block_bytes_ = count.used();
  void* p =
      mmap(nullptr, static_cast<size_t>(block_bytes_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    char what[96];
    std::snprintf(what, sizeof what, "a context of %lld tokens, which needs %lld bytes", number(n_ctx),
                  number(block_bytes_));
    return no_memory(error, what);
  }
  block_ = static_cast<uint8_t*>(p);
  Placer placer(block_);
  place(&placer, c);
  const auto* factors = static_cast<const float*>(model->rope_factors.data);
  if (c.architecture->rotary) rope_table(c.rope_theta, factors, c.head_dim, n_ctx, cache_.cos, cache_.sin);
  return true;
}

bool Session::truncate(int64_t n, Error* error) {
  if (n < 0 || n > length_)
    return fail(error, -1, "cannot keep %lld tokens, the session has %lld", number(n), number(length_));
  length_ = cache_.length = n;
  return true;
}

bool Session::check(const int32_t* ids, int64_t n, Error* error) const {
  const int64_t V = model_->config().vocab_size;
  if (n < 1) return fail(error, -1, "no token ids given, at least one is needed");
  if (n > cache_.n_ctx - length_)
    return fail(error, -1, "%lld tokens do not fit: %lld of %lld are used", number(n), number(length_),
                number(cache_.n_ctx));
  for (int64_t i = 0; i < n; ++i)
    if (ids[i] < 0 || ids[i] >= V) return fail(error, -1, "token id %d is outside 0 to %lld", ids[i], number(V - 1));
  return true;
}

bool Session::check_batch(const Sequence* s, int64_t count, Error* error) {
  if (count < 1) return fail(error, -1, "no sessions given, at least one is needed");
  for (int64_t i = 0; i < count; ++i) {
    Error why;
    if (!s[i].session->check(s[i].ids, s[i].n, &why))
      return fail(error, -1, "sequence %lld of %lld: %s", number(i), number(count), why.text);
    if (s[i].session->model_ != s[0].session->model_)
      return fail(error, -1, "sequence %lld of %lld belongs to another model than the first", number(i), number(count));
    for (int64_t j = 0; j < i; ++j)
      if (s[i].session == s[j].session)
        return fail(error, -1, "sequences %lld and %lld of %lld are the same session", number(j), number(i),
                    number(count));
  }
  return true;
}

bool Session::eval(const int32_t* ids, int64_t n, bool every, float* logits, Error* error) {
  const Sequence one{this, ids, n};
  return check(ids, n, error) && run(&one, 1, every, logits, error);
}

bool Session::eval_batch(const Sequence* sequences, int64_t count, float* logits, Error* error) {
  return check_batch(sequences, count, error) && run(sequences, count, false, logits, error);
}

// Passes of at most kRows rows, filled in the order of the sequences; the scratch is the first session's.
bool Session::run(const Sequence* sequences, int64_t count, bool every, float* logits, Error* error) {
  const Session& first = *sequences[0].session;
  const int64_t V = first.model_->config().vocab_size;
  bool ok = true;
  for (int64_t i = 0, used = 0; ok && i < count;) {  // used: ids of sequence i already taken
    Segment segments[kRows];
    int64_t parts = 0, rows = 0, wanted[kRows], n_wanted = 0;
    while (i < count && rows < kRows) {
      const Sequence& s = sequences[i];
      const int64_t T = s.n - used < kRows - rows ? s.n - used : kRows - rows;
      segments[parts++] = {&s.session->cache_, s.ids + used, rows, T};
      rows += T, used += T;
      for (int64_t row = every ? rows - T : rows - 1; row < rows; ++row)
        if (every || used == s.n) wanted[n_wanted++] = row;
      if (used == s.n) ++i, used = 0;
    }
    Forward pass(*first.model_, first.scratch_, segments, parts);
    ok = pass.run(error) && (n_wanted == 0 || pass.logits(wanted, n_wanted, logits, error));
    logits += n_wanted * V;
    for (int64_t p = 0; p < parts; ++p) segments[p].cache->length += segments[p].T;
  }
  for (int64_t i = 0; i < count; ++i) {  // all or nothing
    Session& s = *sequences[i].session;
    (ok ? s.length_ : s.cache_.length) = ok ? s.cache_.length : s.length_;
  }
  return ok;
}

}  // namespace gristmill::runtime
