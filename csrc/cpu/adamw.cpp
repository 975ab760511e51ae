// Adam with decoupled weight decay. Loshchilov and Hutter, ICLR 2019, algorithm 2.
#include "cpu/adam.h"

namespace gristmill::GM_ISA {

int64_t adamw_workspace(const AdamwArgs*, int32_t) { return 0; }

Status adamw(Context* ctx, const AdamwArgs* a) { return adam_step<true>(ctx, a); }

}  // namespace gristmill::GM_ISA
