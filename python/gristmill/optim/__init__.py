"""Optimizers and learning-rate schedules."""

from gristmill.optim.optimizer import SGD, AdamW, Optimizer
from gristmill.optim.schedule import Plateau, learning_rate

__all__ = ["SGD", "AdamW", "Optimizer", "Plateau", "learning_rate"]
