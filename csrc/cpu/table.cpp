#include "kernels.h"

#define GM_STRING_(x) #x
#define GM_STRING(x) GM_STRING_(x)

namespace gristmill::GM_ISA {

// Weak: an op no file of this folder defines leaves a null entry, which is how a table says it has no such kernel.
#define GM_DECLARE(entry, FIELDS, Args, contains)            \
  __attribute__((weak)) Status entry(Context*, const Args*); \
  __attribute__((weak)) int64_t entry##_workspace(const Args*, int32_t threads);
GM_OPS(GM_DECLARE)
extern const Kernels kTable;

#define GM_FILL(entry, FIELDS, Args, contains) entry, entry##_workspace,
const Kernels kTable = {GM_STRING(GM_ISA), GM_OPS(GM_FILL)};

}  // namespace gristmill::GM_ISA
