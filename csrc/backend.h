// Chooses the table of kernels once, by instruction set, and lets one entry be replaced by name.
#pragma once
#include "kernels.h"

namespace gristmill {

// The table in use, with any replaced entries. Never null; the pointer stays the same.
const Kernels* kernels();
const char* table_reason();       // why this table was chosen
const char* environment_error();  // null, or why GRISTMILL_ISA or GRISTMILL_THREADS cannot be obeyed
int table_count();                // tables this machine can run, best first
const char* table_name(int i);
bool table_select(const char* name);  // false: no such table here
// Replaces an entry and its <entry>_workspace (null: it needs none); a null fn restores the table's own two. False: no
// such entry.
bool table_swap(const char* entry, void* fn, void* workspace);

// A context for calls from this thread, with at least `bytes` of workspace; false when memory ran out.
bool make_context(Context* ctx, int64_t bytes);

// Fields of every argument struct, and under their own names of View and Context.
struct FieldInfo {
  const char *entry, *name, *type, *meaning;
  int64_t offset, size;
};
int field_count();
FieldInfo field(int i);
int entry_count();
const char* entry_name(int i);
const char* entry_contains(int i);
bool entry_replaced(int i);
bool entry_present(int i);
// Whether an entry may be used: it is there, and none of the plain entries it contains was replaced.
bool fused(const char* entry);

}  // namespace gristmill
