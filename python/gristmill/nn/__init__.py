"""Modules with PyTorch's names."""

from gristmill._tensor import Parameter
from gristmill.nn import functional, init
from gristmill.nn.module import (
    GELU,
    Conv1D,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    Module,
    ModuleList,
    RMSNorm,
    SiLU,
)

__all__ = [
    "GELU",
    "Conv1D",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "Parameter",
    "RMSNorm",
    "SiLU",
    "functional",
    "init",
]
