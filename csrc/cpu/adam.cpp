// Adam, the decay added to the gradient. Kingma and Ba, ICLR 2015, algorithm 1.
#include "cpu/adam.h"

namespace gristmill::GM_ISA {

int64_t adam_workspace(const AdamArgs*, int32_t) { return 0; }

Status adam(Context* ctx, const AdamArgs* a) { return adam_step<false>(ctx, a); }

}  // namespace gristmill::GM_ISA
