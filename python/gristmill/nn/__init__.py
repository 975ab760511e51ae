"""Modules with PyTorch's names."""

from gristmill._tensor import Parameter
from gristmill.nn import functional, init
from gristmill.nn.module import (
    Dropout,
    Embedding,
    Linear,
    Module,
    ModuleList,
    RMSNorm,
    SiLU,
)

__all__ = [
    "Dropout",
    "Embedding",
    "Linear",
    "Module",
    "ModuleList",
    "Parameter",
    "RMSNorm",
    "SiLU",
    "functional",
    "init",
]
