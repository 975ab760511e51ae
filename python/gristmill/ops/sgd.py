"""Stochastic gradient descent with momentum.

Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
learning", ICML 2013, in PyTorch's form (the velocity holds gradients, not steps).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def reference_forward(
    param: Floats,
    velocity: Floats,
    grad: Floats,
    step: Sequence[float],
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> tuple[Floats, Floats]:
    """The twin: one update -> (param, velocity), both (n); velocity is untouched without momentum.

    step = [learning rate, gradient scale, 1 on the first step else 0].
    """
    rate, scale, first = step
    g = grad * scale + weight_decay * param
    if momentum:
        velocity = g if first else momentum * velocity + (1 - dampening) * g
        g = g + momentum * velocity if nesterov else velocity
    return param - rate * g, velocity
