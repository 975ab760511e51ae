"""Optimizers and learning-rate schedules."""

from gristmill.optim.methods import SGD, Adam, AdamW, RMSprop
from gristmill.optim.optimizer import Optimizer
from gristmill.optim.schedule import Plateau, learning_rate

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "Plateau", "RMSprop", "learning_rate"]
