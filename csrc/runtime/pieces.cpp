#include "pieces.h"

#include "unicode.h"

namespace gristmill::runtime {
namespace {

constexpr Pieces kGpt2{"gpt-2", false, 0, false, false, false};
constexpr Pieces kLlama3{"llama-bpe", true, 3, false, true, true};
constexpr Pieces kQwen2{"qwen2", true, 1, false, false, false};
constexpr Pieces kSmollm{"smollm", false, 1, true, false, false};
constexpr struct {
  const char* name;
  const Pieces* pieces;
} kNames[] = {{"gpt-2", &kGpt2},  {"llama-bpe", &kLlama3}, {"llama3", &kLlama3},   {"llama-v3", &kLlama3},
              {"qwen2", &kQwen2}, {"smollm", &kSmollm},    {"starcoder", &kSmollm}};

constexpr uint32_t kLongS = 0x17f;  // the one letter beyond ASCII that a contraction equals when case does not count

struct Text {
  const uint8_t* p;
  int64_t n;

  CharClass at(int64_t i, int64_t* end) const {
    uint32_t c = 0;
    *end = i + decode_utf8(p + i, n - i, &c);
    return char_class(c);
  }
  bool is(int64_t i, CharClass kind) const {
    int64_t end = 0;
    return i < n && at(i, &end) == kind;
  }
  int64_t run_end(int64_t i, CharClass kind, int32_t most = 0) const {  // most 0: no limit
    int64_t end = 0;
    for (int32_t count = 0; i < n && (most == 0 || count < most) && at(i, &end) == kind; ++count) i = end;
    return i;
  }
  bool line_end(int64_t i) const { return i < n && (p[i] == '\r' || p[i] == '\n'); }
};

// End of the contraction ('s 't 'm 'd 'll 've 're) at `at`, or `at`.
int64_t contraction_end(const Text& t, int64_t at, bool any_case) {
  if (t.p[at] != '\'' || at + 1 >= t.n) return at;
  const auto letter = [&](int64_t i) -> uint8_t {
    if (i >= t.n) return 0;
    return any_case && t.p[i] >= 'A' && t.p[i] <= 'Z' ? static_cast<uint8_t>(t.p[i] + 32) : t.p[i];
  };
  const uint8_t a = letter(at + 1), b = letter(at + 2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
  if ((a == 'l' && b == 'l') || (a == 'v' && b == 'e') || (a == 'r' && b == 'e')) return at + 3;
  uint32_t c = 0;
  const int64_t size = decode_utf8(t.p + at + 1, t.n - at - 1, &c);
  return any_case && c == kLongS ? at + 1 + size : at;
}

// \s+(?!\S)|\s+: a run of spaces gives its last one to the word that follows, but not to digits cut out before.
int64_t spaces_end(const Text& t, int64_t at, bool digits_first) {
  int64_t end = at, last = at, next = 0;
  while (end < t.n && t.at(end, &next) == CharClass::space) last = end, end = next;
  const bool followed = end < t.n && !(digits_first && t.is(end, CharClass::number));
  return followed && last > at ? last : end;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
int64_t gpt2_end(const Pieces& pieces, const Text& t, int64_t at) {
  if (const int64_t end = contraction_end(t, at, false); end > at) return end;
  const int64_t word = at + (t.p[at] == ' ' ? 1 : 0);
  int64_t next = 0;
  if (word < t.n) {
    const CharClass kind = t.at(word, &next);
    const bool number = kind == CharClass::number;
    if (number && pieces.digits_first && word == at) return next;
    if (kind != CharClass::space && !(number && pieces.digits_first)) return t.run_end(word, kind);
  }
  return spaces_end(t, at, pieces.digits_first);
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
int64_t llama3_end(const Pieces& pieces, const Text& t, int64_t at) {
  if (const int64_t end = contraction_end(t, at, true); end > at) return end;
  int64_t next = 0;
  const CharClass kind = t.at(at, &next);
  if (kind == CharClass::letter) return t.run_end(at, kind);
  if (kind == CharClass::number) return t.run_end(at, kind, pieces.digits);
  if (!t.line_end(at) && t.is(next, CharClass::letter)) return t.run_end(next, CharClass::letter);
  const int64_t word = at + (t.p[at] == ' ' ? 1 : 0);
  if (t.is(word, CharClass::other)) {
    int64_t end = t.run_end(word, CharClass::other);
    while (t.line_end(end)) ++end;
    return end;
  }
  const int64_t end = t.run_end(at, CharClass::space);
  for (int64_t last = end; last > at; --last)
    if (t.line_end(last - 1)) return last;
  return spaces_end(t, at, false);
}

}  // namespace

const Pieces* find_pieces(Str name) {
  for (const auto& entry : kNames)
    if (equal(name, str(entry.name))) return entry.pieces;
  return nullptr;
}

const char* pieces_names() { return "'gpt-2', 'llama-bpe', 'qwen2', 'smollm' and 'starcoder' are"; }

int64_t piece_end(const Pieces& pieces, const uint8_t* p, int64_t at, int64_t n) {
  const Text t{p, n};
  return pieces.newlines ? llama3_end(pieces, t, at) : gpt2_end(pieces, t, at);
}

}  // namespace gristmill::runtime
