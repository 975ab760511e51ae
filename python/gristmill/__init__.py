"""gristmill: from raw data to a served model with hand-cut kernels.

Names load on first use, so that `import gristmill` is quick and the data part needs no compiler.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Tensor": "_tensor", "Parameter": "_tensor", "tensor": "_tensor", "from_numpy": "_tensor",
    "from_dlpack": "_tensor", "empty": "_tensor", "zeros": "_tensor",
    "no_grad": "autograd", "enable_grad": "autograd",
    "Trainer": "training", "TrainerConfig": "training",
}  # fmt: skip
_MODULES = ("nn", "optim", "ops", "models", "lab", "training")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"gristmill.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"gristmill.{name}")
    raise AttributeError(f"module 'gristmill' has no attribute {name!r}")


def manual_seed(seed: int) -> None:
    """Seed of every random choice made by modules and ops from here on."""
    importlib.import_module("gristmill.nn.init").manual_seed(seed)


def set_num_threads(n: int) -> None:
    """Threads of the kernels; results do not depend on it."""
    importlib.import_module("gristmill.backend")._C.set_threads(n)


def get_num_threads() -> int:
    """Threads of the kernels."""
    return int(importlib.import_module("gristmill.backend")._C.threads())
