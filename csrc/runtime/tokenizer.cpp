#include "tokenizer.h"

#include "unicode.h"

namespace gristmill::runtime {
namespace {

constexpr uint64_t kNoPair = ~uint64_t{0};
constexpr int64_t kNormal = 1, kControl = 3, kUserDefined = 4;  // tokenizer.ggml.token_type

// GPT-2's printable alphabet: bytes 33-126, 161-172, 174-255 stand for themselves, the other 68 for U+0100 onwards.
int32_t byte_of(uint32_t code_point) {
  if ((code_point >= 33 && code_point <= 126) || (code_point >= 161 && code_point <= 255 && code_point != 173))
    return static_cast<int32_t>(code_point);
  if (code_point < 256 || code_point >= 256 + 68) return -1;
  const auto n = static_cast<int32_t>(code_point) - 256;
  return n < 33 ? n : n < 67 ? n - 33 + 127 : 173;
}

// End of the contraction ('s 't 'm 'd 'll 've 're) at `at`, or `at`.
int64_t contraction_end(const uint8_t* p, int64_t at, int64_t n) {
  if (p[at] != '\'' || at + 1 >= n) return at;
  const uint8_t a = p[at + 1], b = at + 2 < n ? p[at + 2] : 0;
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
  if ((a == 'l' && b == 'l') || (a == 'v' && b == 'e') || (a == 'r' && b == 'e')) return at + 3;
  return at;
}

// End of the piece that begins at `at`:
// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
int64_t piece_end(const uint8_t* p, int64_t at, int64_t n) {
  const int64_t contraction = contraction_end(p, at, n);
  if (contraction > at) return contraction;
  uint32_t c = 0;
  int64_t word = at + (p[at] == ' ' ? 1 : 0);
  if (word < n) {
    int64_t end = word + decode_utf8(p + word, n - word, &c);
    const CharClass kind = char_class(c);
    if (kind != CharClass::space) {
      for (int64_t step = 0; end < n; end += step) {
        step = decode_utf8(p + end, n - end, &c);
        if (char_class(c) != kind) break;
      }
      return end;
    }
  }
  int64_t end = at, last = at;  // a run of spaces gives its last one to the word that follows
  while (end < n) {
    const int64_t step = decode_utf8(p + end, n - end, &c);
    if (char_class(c) != CharClass::space) break;
    last = end;
    end += step;
  }
  return end < n && last > at ? last : end;
}

}  // namespace

bool Tokenizer::add_token(Str text, bool special) {
  const int64_t begin = bytes_.size();
  bool mapped = !special;
  const auto* p = reinterpret_cast<const uint8_t*>(text.data);
  for (int64_t at = 0; mapped && at < text.size;) {
    uint32_t c = 0;
    at += decode_utf8(p + at, text.size - at, &c);
    const int32_t b = byte_of(c);
    const auto byte = static_cast<uint8_t>(b);
    mapped = b >= 0;
    if (mapped && !bytes_.append(&byte, 1)) return false;
  }
  if (!mapped) {  // not in the byte alphabet: the text itself
    if (!bytes_.resize(begin) || !bytes_.append(p, text.size)) return false;
  }
  return tokens_.push({begin, bytes_.size() - begin, special});
}

bool Tokenizer::load_tokens(const Gguf& file, Error* error) {
  const Value* tokens = file.find("tokenizer.ggml.tokens");
  const Value* types = file.find("tokenizer.ggml.token_type");
  if (tokens == nullptr || !tokens->is_array || tokens->type != ValueType::string || tokens->count < 1)
    return fail(error, -1, "tokenizer.ggml.tokens is no array of strings");
  if (tokens->count > INT32_MAX / 4) return fail(error, tokens->offset, "too many tokens");
  if (types != nullptr && (!types->is_array || types->count != tokens->count || types->type != ValueType::i32))
    return fail(error, types->offset, "tokenizer.ggml.token_type is no i32 array of one type per token");
  int64_t at = tokens->offset;
  for (int64_t i = 0; i < tokens->count; ++i) {
    int64_t type = kNormal;
    if (types != nullptr) file.as_int(*types, i, &type);
    if (type < 0 || type > 6)
      return fail(error, types->offset + 4 * i, "token %lld has unknown type %lld", static_cast<long long>(i),
                  static_cast<long long>(type));
    const int64_t token_at = at;
    const Str text = file.next_string(&at);
    const bool special = type == kControl || type == kUserDefined;
    if (special && text.size == 0)
      return fail(error, token_at, "special token %lld is empty", static_cast<long long>(i));
    if (!add_token(text, special) || (special && !specials_.push(static_cast<int32_t>(i))))
      return no_memory(error, "the tokens");
    if (special) special_first_[static_cast<uint8_t>(text.data[0])] = true;
  }
  if (!by_bytes_.reset(tokens_.size())) return no_memory(error, "the tokens");
  at = tokens->offset;
  for (int64_t i = 0; i < tokens_.size(); ++i) {
    const int64_t token_at = at;
    file.next_string(&at);
    if (tokens_[i].special) continue;
    if (by_bytes_.insert(token_bytes(i), i) >= 0)
      return fail(error, token_at, "token %lld repeats an earlier one", static_cast<long long>(i));
  }
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    const int64_t id = by_bytes_.find({&byte, 1});
    if (id < 0) return fail(error, tokens->offset, "the vocabulary has no token for byte 0x%02x", b);
    byte_ids_[b] = static_cast<int32_t>(id);
  }
  return true;
}

bool Tokenizer::load_merges(const Gguf& file, Error* error) {
  const Value* merges = file.find("tokenizer.ggml.merges");
  if (merges == nullptr) return fail(error, -1, "the file has no tokenizer.ggml.merges");
  if (!merges->is_array || merges->type != ValueType::string || merges->count > INT32_MAX / 4)
    return fail(error, merges->offset, "tokenizer.ggml.merges is no array of strings");
  if (!merges_.resize(power_of_two_above(merges->count * 2))) return no_memory(error, "the merges");
  for (Merge& m : merges_) m.pair = kNoPair;
  Array<uint8_t> joined;
  Tokenizer halves;  // maps the two texts of a merge to bytes
  int64_t at = merges->offset;
  for (int64_t rank = 0; rank < merges->count; ++rank) {
    const int64_t merge_at = at;
    const Str text = file.next_string(&at);
    const auto* space = static_cast<const char*>(std::memchr(text.data, ' ', static_cast<size_t>(text.size)));
    const int64_t cut = space == nullptr ? -1 : space - text.data;
    if (cut < 1 || cut + 1 >= text.size)
      return fail(error, merge_at, "merge %lld is not 'left right'", static_cast<long long>(rank));
    halves.tokens_.clear(), halves.bytes_.clear();
    if (!halves.add_token({text.data, cut}, false) ||
        !halves.add_token({text.data + cut + 1, text.size - cut - 1}, false))
      return no_memory(error, "the merges");
    const int64_t left = by_bytes_.find(halves.token_bytes(0)), right = by_bytes_.find(halves.token_bytes(1));
    const int64_t result = by_bytes_.find({reinterpret_cast<const char*>(halves.bytes_.data()), halves.bytes_.size()});
    if (left < 0 || right < 0 || result < 0)
      return fail(error, merge_at, "merge %lld uses a token outside the vocabulary", static_cast<long long>(rank));
    const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
    auto* slot = const_cast<Merge*>(find_merge(static_cast<int32_t>(left), static_cast<int32_t>(right)));
    if (slot->pair == kNoPair)
      *slot = {pair, static_cast<int32_t>(rank), static_cast<int32_t>(result)};
    else
      return fail(error, merge_at, "merge %lld repeats an earlier one", static_cast<long long>(rank));
  }
  return true;
}

bool Tokenizer::load_ids(const Gguf& file, Error* error) {
  const struct {
    const char* key;
    int64_t* id;
  } ids[] = {{"tokenizer.ggml.bos_token_id", &bos_id},
             {"tokenizer.ggml.eos_token_id", &eos_id},
             {"tokenizer.ggml.fim_pre_token_id", &fim_prefix_id},
             {"tokenizer.ggml.fim_suf_token_id", &fim_suffix_id},
             {"tokenizer.ggml.fim_mid_token_id", &fim_middle_id},
             {"tokenizer.ggml.fim_pad_token_id", &fim_pad_id},
             {"tokenizer.ggml.fim_rep_token_id", &fim_repo_id},
             {"tokenizer.ggml.fim_sep_token_id", &fim_file_id}};
  for (const auto& entry : ids) {
    const Value* v = file.find(entry.key);
    if (v == nullptr) continue;
    if (v->is_array || !file.as_int(*v, 0, entry.id) || *entry.id < 0 || *entry.id >= vocab_size())
      return fail(error, v->offset, "%s is no id below the vocabulary's %lld", entry.key,
                  static_cast<long long>(vocab_size()));
  }
  if (const Value* v = file.find("tokenizer.ggml.add_bos_token"); v != nullptr) {
    int64_t flag = 0;
    if (v->is_array || v->type != ValueType::boolean || !file.as_int(*v, 0, &flag))
      return fail(error, v->offset, "tokenizer.ggml.add_bos_token is no bool");
    add_bos = flag != 0;
  }
  if (const Value* v = file.find("gristmill.fim.order"); v != nullptr) {
    Str order;
    if (!file.as_string(*v, &order) || (!equal(order, str("psm")) && !equal(order, str("spm"))))
      return fail(error, v->offset, "gristmill.fim.order is neither psm nor spm");
    fim_suffix_first = equal(order, str("spm"));
  }
  return true;
}

bool Tokenizer::load(const Gguf& file, Error* error) {
  const Value* model = file.find("tokenizer.ggml.model");
  const Value* pre = file.find("tokenizer.ggml.pre");
  Str name;
  if (model == nullptr) return fail(error, -1, "the file has no tokenizer.ggml.model");
  if (!file.as_string(*model, &name) || !equal(name, str("gpt2")))
    return fail(error, model->offset, "tokenizer.ggml.model is '%.*s', only 'gpt2' is supported",
                static_cast<int>(name.size < 40 ? name.size : 40), name.data == nullptr ? "" : name.data);
  name = {};
  if (pre == nullptr) return fail(error, -1, "the file has no tokenizer.ggml.pre, 'gpt-2' is supported");
  if (!file.as_string(*pre, &name) || !equal(name, str("gpt-2")))
    return fail(error, pre->offset, "tokenizer.ggml.pre is '%.*s', only 'gpt-2' is supported",
                static_cast<int>(name.size < 40 ? name.size : 40), name.data == nullptr ? "" : name.data);
  return load_tokens(file, error) && load_merges(file, error) && load_ids(file, error);
}

Str Tokenizer::token_bytes(int64_t id) const {
  const Token& t = tokens_[id];
  return {reinterpret_cast<const char*>(bytes_.data() + t.begin), t.size};
}

bool Tokenizer::is_end(int64_t id) const {
  if (id < 0) return false;
  for (const int64_t end : {eos_id, fim_prefix_id, fim_suffix_id, fim_middle_id, fim_pad_id, fim_repo_id, fim_file_id})
    if (id == end) return true;
  return false;
}

const Tokenizer::Merge* Tokenizer::find_merge(int32_t left, int32_t right) const {
  const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
  const auto mask = static_cast<uint64_t>(merges_.size() - 1);
  uint64_t mixed = pair * 0x9e3779b97f4a7c15u;
  mixed ^= mixed >> 32;
  uint64_t i = mixed & mask;
  while (merges_[static_cast<int64_t>(i)].pair != kNoPair && merges_[static_cast<int64_t>(i)].pair != pair)
    i = (i + 1) & mask;
  return &merges_[static_cast<int64_t>(i)];
}

int64_t Tokenizer::special_at(Str text, int64_t at, int64_t* size) const {
  if (!special_first_[static_cast<uint8_t>(text.data[at])]) return -1;
  int64_t best = -1;
  *size = 0;
  for (const int32_t id : specials_) {
    const Str name = token_bytes(id);
    if (name.size > *size && starts_with({text.data + at, text.size - at}, name)) best = id, *size = name.size;
  }
  return best;
}

bool Tokenizer::encode(Str text, bool special, Array<int32_t>* ids) const {
  Work work;
  int64_t begin = 0;
  for (int64_t at = 0; special && at < text.size;) {
    int64_t size = 0;
    const int64_t id = special_at(text, at, &size);
    if (id < 0) {
      ++at;
      continue;
    }
    if (!encode_plain({text.data + begin, at - begin}, &work, ids) || !ids->push(static_cast<int32_t>(id)))
      return false;
    begin = at += size;
  }
  return encode_plain({text.data + begin, text.size - begin}, &work, ids);
}

bool Tokenizer::encode_plain(Str text, Work* work, Array<int32_t>* ids) const {
  const auto* p = reinterpret_cast<const uint8_t*>(text.data);
  for (int64_t at = 0; at < text.size;) {
    const int64_t end = piece_end(p, at, text.size);
    if (end - at > INT32_MAX / 2 || !encode_piece({text.data + at, end - at}, work, ids)) return false;
    at = end;
  }
  return true;
}

namespace {
// Binary heap in an array; less(a, b): a comes first.
template <class T, class Less>
void sift_up(Array<T>& heap, Less less) {
  for (int64_t i = heap.size() - 1; i > 0;) {
    const int64_t parent = (i - 1) / 2;
    if (!less(heap[i], heap[parent])) return;
    std::swap(heap[i], heap[parent]);
    i = parent;
  }
}
template <class T, class Less>
T pop(Array<T>& heap, Less less) {
  const T top = heap[0];
  const int64_t n = heap.size() - 1;
  heap[0] = heap[n];
  (void)heap.resize(n);  // shrinking cannot fail
  for (int64_t i = 0;;) {
    int64_t child = 2 * i + 1;
    if (child >= n) return top;
    if (child + 1 < n && less(heap[child + 1], heap[child])) ++child;
    if (!less(heap[child], heap[i])) return top;
    std::swap(heap[i], heap[child]);
    i = child;
  }
}
constexpr auto kFirst = [](const auto& a, const auto& b) {
  return a.rank != b.rank ? a.rank < b.rank : a.left < b.left;
};
}  // namespace

bool Tokenizer::push_pair(Work* work, int32_t left) const {
  if (left < 0) return true;
  const Symbol& a = work->symbols[left];
  if (a.next < 0) return true;
  const int32_t right_id = work->symbols[a.next].id;
  const Merge* m = find_merge(a.id, right_id);
  if (m->pair == kNoPair) return true;
  if (!work->heap.push({m->rank, left, a.id, right_id})) return false;
  sift_up(work->heap, kFirst);
  return true;
}

// Least rank first, leftmost among equals; O(n log n) also for a megabyte of one letter.
bool Tokenizer::encode_piece(Str piece, Work* work, Array<int32_t>* ids) const {
  Array<Symbol>& symbols = work->symbols;
  symbols.clear();
  work->heap.clear();
  const auto n = static_cast<int32_t>(piece.size);
  for (int32_t i = 0; i < n; ++i)
    if (!symbols.push({byte_ids_[static_cast<uint8_t>(piece.data[i])], i - 1, i + 1 < n ? i + 1 : -1})) return false;
  for (int32_t i = 0; i + 1 < n; ++i)
    if (!push_pair(work, i)) return false;
  while (work->heap.size() > 0) {
    const Candidate top = pop(work->heap, kFirst);
    Symbol& left = symbols[top.left];
    if (left.id != top.left_id || left.next < 0 || symbols[left.next].id != top.right_id) continue;  // outdated
    const Symbol right = symbols[left.next];
    symbols[left.next].id = -1;
    left.id = find_merge(top.left_id, top.right_id)->result;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = top.left;
    if (!push_pair(work, left.previous) || !push_pair(work, top.left)) return false;
  }
  for (int32_t i = 0; i >= 0 && i < n; i = symbols[i].next)
    if (!ids->push(symbols[i].id)) return false;
  return true;
}

}  // namespace gristmill::runtime
