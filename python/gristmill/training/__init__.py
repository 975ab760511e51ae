"""The training loop. Its names load on first use: the settings beside it need no compiled part."""

from typing import Any

__all__ = ["History", "Trainer", "TrainerConfig"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from gristmill.training import trainer

        return getattr(trainer, name)
    raise AttributeError(f"module 'gristmill.training' has no attribute {name!r}")
