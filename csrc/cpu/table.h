// What every table of this folder offers: each op's two functions, declared in the namespace of the instruction set.
#pragma once
#include "kernels.h"

namespace gristmill::GM_ISA {

#define GM_DECLARE(entry, FIELDS, Args, contains) \
  Status entry(Context*, const Args*);            \
  int64_t entry##_workspace(const Args*, int32_t threads);
GM_OPS(GM_DECLARE)
#undef GM_DECLARE

extern const Kernels kTable;

}  // namespace gristmill::GM_ISA
