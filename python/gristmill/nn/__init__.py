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
    MSELoss,
    ReLU,
    RMSNorm,
    Sigmoid,
    SiLU,
    Tanh,
)

__all__ = [
    "GELU",
    "Conv1D",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "MSELoss",
    "Module",
    "ModuleList",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Tanh",
    "functional",
    "init",
]
