"""silu(x) = x * sigmoid(x). Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units", 2017."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def reference_forward(x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """The twin: x (any shape) -> the same shape and dtype."""
    return x / (1 + np.exp(-x))


def reference_backward(
    dout: npt.NDArray[np.floating], x: npt.NDArray[np.floating]
) -> npt.NDArray[np.floating]:
    """d silu/dx = s + x s (1 - s) with s = sigmoid(x), times dout; shapes as x."""
    s = 1 / (1 + np.exp(-x))
    return dout * (s + x * s * (1 - s))
