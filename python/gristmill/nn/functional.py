"""The ops by PyTorch's names: `gm.nn.functional.silu(x)`. Each has its own file in `ops/`."""

from gristmill.ops.attention import attention
from gristmill.ops.cross_entropy import cross_entropy
from gristmill.ops.dropout import dropout
from gristmill.ops.embedding import embedding
from gristmill.ops.gelu import gelu
from gristmill.ops.layernorm import layernorm as layer_norm
from gristmill.ops.linear_cross_entropy import linear_cross_entropy
from gristmill.ops.matmul import linear, matmul
from gristmill.ops.mse import mse as mse_loss
from gristmill.ops.relu import relu
from gristmill.ops.rmsnorm import rmsnorm as rms_norm
from gristmill.ops.rope import rope
from gristmill.ops.sigmoid import sigmoid
from gristmill.ops.silu import silu
from gristmill.ops.softmax import softmax
from gristmill.ops.swiglu import swiglu
from gristmill.ops.tanh import tanh

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
    "mse_loss",
    "relu",
    "rms_norm",
    "rope",
    "sigmoid",
    "silu",
    "softmax",
    "swiglu",
    "tanh",
]
