"""A right kernel of silu in C++, for tests that spoil it."""

from __future__ import annotations

from pathlib import Path

# float32 only, any stride between rows, adds or overwrites
RIGHT = """
#include "kernels.h"
#include <cmath>
using namespace gristmill;
extern "C" Status silu_forward(Context* ctx, const SiluForwardArgs* a) {
  if (a->x.dtype != DType::f32) return Status::unsupported;
  ctx->parallel_for(ctx, a->rows, [](void* p, int64_t i) {
    auto* a = static_cast<const SiluForwardArgs*>(p);
    const float* x = static_cast<const float*>(a->x.data) + i * a->x.strides[0];
    float* out = static_cast<float*>(a->out.data) + i * a->out.strides[0];
    for (int64_t j = 0; j < a->cols; ++j)
      out[j] = (a->out.accumulate ? out[j] : 0.0f) + x[j] / (1.0f + std::exp(-x[j]));
  }, const_cast<SiluForwardArgs*>(a));
  return Status::ok;
}
"""


def written(folder: Path, text: str) -> Path:
    """The text as a file."""
    source = folder / "mine.cpp"
    source.write_text(text)
    return source
