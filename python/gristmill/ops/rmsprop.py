"""Gradients divided by the root of their average square.

Tieleman and Hinton, "Lecture 6.5: RMSprop", 2012; centred and with momentum as in Graves,
"Generating sequences with recurrent neural networks", 2013, in PyTorch's form.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def reference_forward(
    param: Floats,
    square: Floats,
    mean: Floats | None,
    velocity: Floats | None,
    grad: Floats,
    step: Sequence[float],
    alpha: float,
    eps: float,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> tuple[Floats, Floats, Floats | None, Floats | None]:
    """The twin: one update -> (param, square, mean, velocity), all (n).

    step = [learning rate, gradient scale]; mean is None where not centred.
    """
    rate, scale = step
    g = grad * scale + weight_decay * param
    square = alpha * square + (1 - alpha) * g * g
    spread = square
    if mean is not None:
        mean = alpha * mean + (1 - alpha) * g
        spread = np.maximum(0, square - mean * mean)
    move = g / (np.sqrt(spread) + eps)
    if velocity is not None:
        velocity = move = momentum * velocity + move
    return param - rate * move, square, mean, velocity
