"""silu(x) = x * sigmoid(x). Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units", 2017."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]


def reference_forward(x: Floats) -> Floats:
    """The twin: x (any shape) -> the same shape."""
    out: Floats = x / (1 + np.exp(-x))
    return out


def reference_backward(dout: Floats, x: Floats) -> Floats:
    """d silu/dx = s + x s (1 - s) with s = sigmoid(x), times dout; shapes as x."""
    s = 1 / (1 + np.exp(-x))
    dx: Floats = dout * (s + x * s * (1 - s))
    return dx


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x), element by element; the shape and dtype of x."""
    out = _C.empty(x.shape, x.dtype)
    _C.silu_forward(rows(out), rows(x.array))

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is not None:
            _C.silu_backward(rows(dx.out()), rows(dout), rows(x.array))

    return record(out, (x,), backward)
