#include "weights.h"

#include "f16.h"

namespace gristmill::runtime {
namespace {

long long number(int64_t n) { return static_cast<long long>(n); }

bool is(const TensorInfo& t, TensorType type) { return t.type == static_cast<uint32_t>(type); }
bool to_widen(const TensorInfo& t) { return is(t, TensorType::f16) || (is(t, TensorType::bf16) && t.n_dims == 1); }

const NamedView* find_view(const NamedView* views, int64_t count, const char* name) {
  for (int64_t i = 0; i < count; ++i)
    if (std::strcmp(views[i].name, name) == 0) return &views[i];
  return nullptr;
}

}  // namespace

bool Weights::reserve(Error* error) {
  if (file_ == nullptr) return true;
  int64_t wide = 0;
  for (const TensorInfo& t : file_->tensors())
    if (to_widen(t)) wide += t.bytes / 2;
  return widened_->resize(wide) || no_memory(error, "the weights");
}

void Weights::full_name(char* name, size_t room, const char* stem, const char* suffix, int64_t layer) const {
  const char* own = stem;
  const char* prefix = file_ != nullptr ? "blk." : architecture_.live_layer;
  if (file_ == nullptr)
    for (const Name* n = architecture_.names; n->stem != nullptr; ++n)
      if (std::strcmp(n->stem, stem) == 0) own = n->live;
  if (layer >= 0)
    std::snprintf(name, room, "%s%lld.%s.%s", prefix, number(layer), own, suffix);
  else
    std::snprintf(name, room, "%s.%s", own, suffix);
}

bool Weights::has(const char* stem, const char* suffix, int64_t layer) const {
  char name[96];
  full_name(name, sizeof name, stem, suffix, layer);
  return file_ != nullptr ? file_->find_tensor(str(name)) != nullptr : find_view(views_, count_, name) != nullptr;
}

bool Weights::find(const char* name, Found* found, Error* error) {
  if (file_ == nullptr) {
    const NamedView* v = find_view(views_, count_, name);
    if (v == nullptr) return fail(error, -1, "no tensor %s given", name);
    const bool two = v->n_dims == 2;
    *found = {v->view, v->n_dims, two ? v->shape[0] : 0, v->n_dims > 0 ? v->shape[v->n_dims - 1] : 0, -1};
    return true;
  }
  const TensorInfo* t = file_->find_tensor(str(name));
  if (t == nullptr) return fail(error, -1, "the file has no tensor %s", name);
  *found = {{}, t->n_dims, t->n_dims == 1 ? 0 : t->dims[1], t->dims[0], t->offset};
  found->view.data = const_cast<uint8_t*>(t->data);  // the mapping is read-only; kernels do not write inputs
  found->view.strides[0] = t->n_dims == 1 ? 1 : t->dims[0];
  found->view.strides[1] = t->n_dims == 1 ? 0 : 1;
  if (to_widen(*t)) return widen(*t, found, error);
  found->view.dtype = is(*t, TensorType::bf16) ? DType::bf16 : DType::f32;
  if (is(*t, TensorType::f32) || is(*t, TensorType::bf16)) return true;
  return fail(error, t->offset, "%s is stored as %s; f32, f16 and bf16 are allowed", name, tensor_type_name(t->type));
}

bool Weights::widen(const TensorInfo& t, Found* found, Error* error) {
  const int64_t n = t.bytes / 2;
  if (widened_used_ + n > widened_->size()) return fail(error, t.offset, "tensor is used twice");
  float* out = widened_->data() + widened_used_;
  const bool half = is(t, TensorType::f16);
  for (int64_t i = 0; i < n; ++i) {
    uint16_t h;
    std::memcpy(&h, t.data + 2 * i, 2);
    out[i] = half ? f16_to_f32(h) : bf16_to_f32(h);
  }
  widened_used_ += n;
  found->view.data = out, found->view.dtype = DType::f32;
  return true;
}

bool Weights::take(const char* stem, const char* suffix, int64_t layer, int64_t rows, int64_t columns, View* view,
                   Error* error) {
  char name[96];
  full_name(name, sizeof name, stem, suffix, layer);
  Found f;
  if (!find(name, &f, error)) return false;
  const bool turn = file_ == nullptr && architecture_.transposed && layer >= 0 && rows > 0;  // (in, out)
  const int64_t want_rows = turn ? columns : rows, want_columns = turn ? rows : columns;
  const int32_t n_dims = rows == 0 ? 1 : 2;
  if (f.n_dims != n_dims || f.rows != want_rows || f.columns != want_columns)
    return fail(error, f.offset, "%s has %d dimensions (%lld, %lld), expected %d dimensions (%lld, %lld)", name,
                f.n_dims, number(f.rows), number(f.columns), n_dims, number(want_rows), number(want_columns));
  if (f.view.dtype != DType::f32 && (rows == 0 || f.view.dtype != DType::bf16))
    return fail(error, f.offset, "%s has a type the session does not run: matrices may be f32 or bf16, vectors f32",
                name);
  if (f.columns > 1 && f.view.strides[n_dims - 1] != 1)
    return fail(error, f.offset, "%s has stride %lld in its last dimension, 1 is allowed: make it contiguous", name,
                number(f.view.strides[n_dims - 1]));
  *view = f.view;
  if (turn) std::swap(view->strides[0], view->strides[1]);
  ++taken_;
  return true;
}

}  // namespace gristmill::runtime
