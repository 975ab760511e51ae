// Byte-level BPE as GPT-2 does it (Radford et al. 2019): text is cut into pieces, the bytes of each piece are joined
// pair by pair in the order of the merge list. Equal, id for id, to the `tokenizers` library.
#pragma once
#include "gguf.h"
#include "pieces.h"
#include "support.h"

namespace gristmill::runtime {

class Tokenizer {
 public:
  // Reads tokenizer.ggml.* of a file. Fails where the model is not 'gpt2' or the pre-tokenizer not known.
  [[nodiscard]] bool load(const Gguf& file, Error* error);
  bool loaded() const { return tokens_.size() > 0; }
  int64_t vocab_size() const { return tokens_.size(); }

  // Appends the ids of `text`; special: names of special tokens become their ids, as those of user-defined tokens
  // always do. False: out of memory.
  [[nodiscard]] bool encode(Str text, bool special, Array<int32_t>* ids) const;
  Str token_bytes(int64_t id) const;  // what the token stands for; a special token's name
  bool is_special(int64_t id) const { return tokens_[id].special; }
  bool is_end(int64_t id) const;  // end of text, or a token that only lays out a prompt

  int64_t bos_id = -1, eos_id = -1;
  int64_t fim_prefix_id = -1, fim_suffix_id = -1, fim_middle_id = -1;
  int64_t fim_pad_id = -1, fim_repo_id = -1, fim_file_id = -1;
  bool fim_suffix_first = false;  // the order the file asks for: SPM instead of PSM
  bool add_bos = false;

 private:
  static constexpr uint64_t kNoPair = ~uint64_t{0};
  struct Token {
    int64_t begin, size;  // in bytes_
    bool special, always;
  };
  struct Merge {
    uint64_t pair;  // left id << 32 | right id
    int32_t rank, result;
  };
  struct Symbol {  // of a piece while it is merged: a doubly linked list in an array
    int32_t id, previous, next;
  };
  struct Candidate {  // two neighbours that may merge; least rank first, then leftmost
    int32_t rank, left, left_id, right_id;
  };
  struct Work {
    Array<Symbol> symbols;
    Array<Candidate> heap;
  };
  bool load_tokens(const Gguf& file, Error* error);
  bool load_merges(const Gguf& file, Error* error);
  bool load_ids(const Gguf& file, Error* error);
  bool add_token(Str text, bool special, bool always);
  bool encode_plain(Str text, Work* work, Array<int32_t>* ids) const;
  bool encode_piece(Str piece, Work* work, Array<int32_t>* ids) const;
  bool push_pair(Work* work, int32_t left) const;
  int64_t special_at(Str text, int64_t at, bool special, int64_t* size) const;
  const Merge* find_merge(int32_t left, int32_t right) const;

  Array<uint8_t> bytes_;
  Array<Token> tokens_;
  Array<int32_t> specials_;
  bool special_first_[256] = {};
  int32_t byte_ids_[256] = {};
  StringIndex by_bytes_;
  Array<Merge> merges_;  // open addressing on pair; a free slot has kNoPair
  const Pieces* pieces_ = nullptr;
};

}  // namespace gristmill::runtime
