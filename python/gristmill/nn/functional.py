"""The ops by PyTorch's names: `gm.nn.functional.silu(x)`. Each has its own file in `ops/`."""

from gristmill.ops.attention import attention
from gristmill.ops.cross_entropy import cross_entropy
from gristmill.ops.dropout import dropout
from gristmill.ops.embedding import embedding
from gristmill.ops.gelu import gelu
from gristmill.ops.layernorm import layernorm as layer_norm
from gristmill.ops.linear_cross_entropy import linear_cross_entropy
from gristmill.ops.matmul import linear, matmul
from gristmill.ops.rmsnorm import rmsnorm as rms_norm
from gristmill.ops.rope import rope
from gristmill.ops.silu import silu
from gristmill.ops.softmax import softmax
from gristmill.ops.swiglu import swiglu

__all__ = [
    "attention",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "matmul",
    "rms_norm",
    "rope",
    "silu",
    "softmax",
    "swiglu",
]
