#include "tokenizer.h"

namespace gristmill::runtime {

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

int64_t Tokenizer::special_at(Str text, int64_t at, bool special, int64_t* size) const {
  if (!special_first_[static_cast<uint8_t>(text.data[at])]) return -1;
  int64_t best = -1;
  *size = 0;
  for (const int32_t id : specials_) {
    const Str name = token_bytes(id);
    if (!special && !tokens_[id].always) continue;
    if (name.size > *size && starts_with({text.data + at, text.size - at}, name)) best = id, *size = name.size;
  }
  return best;
}

bool Tokenizer::encode(Str text, bool special, Array<int32_t>* ids) const {
  Work work;
  int64_t begin = 0;
  for (int64_t at = 0; at < text.size;) {
    int64_t size = 0;
    const int64_t id = special_at(text, at, special, &size);
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
    const int64_t end = piece_end(*pieces_, p, at, text.size);
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
  if (pieces_->whole)
    if (const int64_t id = by_bytes_.find(piece); id >= 0) return ids->push(static_cast<int32_t>(id));
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
