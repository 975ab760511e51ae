#include "tokenizer.h"
#include "unicode.h"

namespace gristmill::runtime {
namespace {

constexpr int64_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;  // tokenizer.ggml.token_type

// GPT-2's printable alphabet: bytes 33-126, 161-172, 174-255 stand for themselves, the other 68 for U+0100 onwards.
int32_t byte_of(uint32_t code_point) {
  if ((code_point >= 33 && code_point <= 126) || (code_point >= 161 && code_point <= 255 && code_point != 173))
    return static_cast<int32_t>(code_point);
  if (code_point < 256 || code_point >= 256 + 68) return -1;
  const auto n = static_cast<int32_t>(code_point) - 256;
  return n < 33 ? n : n < 67 ? n - 33 + 127 : 173;
}

int shown(Str s) { return static_cast<int>(s.size < 40 ? s.size : 40); }
const char* text_of(Str s) { return s.data == nullptr ? "" : s.data; }

}  // namespace

bool Tokenizer::add_token(Str text, bool special, bool always) {
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
  return tokens_.push({begin, bytes_.size() - begin, special, always});
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
    if (!add_token(text, special, type == kUserDefined) || (special && !specials_.push(static_cast<int32_t>(i))))
      return no_memory(error, "the tokens");
    if (special) special_first_[static_cast<uint8_t>(text.data[0])] = true;
  }
  if (!by_bytes_.reset(tokens_.size())) return no_memory(error, "the tokens");
  at = tokens->offset;
  for (int64_t i = 0; i < tokens_.size(); ++i) {
    const int64_t token_at = at;
    file.next_string(&at);
    int64_t type = kNormal;
    if (types != nullptr) file.as_int(*types, i, &type);
    if (tokens_[i].special || type == kUnused) continue;
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
    if (!halves.add_token({text.data, cut}, false, false) ||
        !halves.add_token({text.data + cut + 1, text.size - cut - 1}, false, false))
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
  add_bos = pieces_->bos_when_silent;
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
    return fail(error, model->offset, "tokenizer.ggml.model is '%.*s', only 'gpt2' is supported", shown(name),
                text_of(name));
  name = {};
  if (pre == nullptr) return fail(error, -1, "the file has no tokenizer.ggml.pre; %s supported", pieces_names());
  if (file.as_string(*pre, &name)) pieces_ = find_pieces(name);
  if (pieces_ == nullptr)
    return fail(error, pre->offset, "tokenizer.ggml.pre is '%.*s'; %s supported", shown(name), text_of(name),
                pieces_names());
  return load_tokens(file, error) && load_merges(file, error) && load_ids(file, error);
}

}  // namespace gristmill::runtime
