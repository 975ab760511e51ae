"""The training loop."""

from gristmill.training.trainer import History, Trainer, TrainerConfig

__all__ = ["History", "Trainer", "TrainerConfig"]
