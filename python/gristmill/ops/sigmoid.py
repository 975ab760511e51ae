"""sigmoid(x) = 1 / (1 + exp(-x)). Bishop, "Pattern recognition and machine learning", 2006,
equation 4.59.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]


def reference_forward(x: Floats) -> Floats:
    """The twin: x (any shape) -> the same shape."""
    out: Floats = 1 / (1 + np.exp(-x))
    return out


def reference_backward(dout: Floats, out: Floats) -> Floats:
    """dx = dout out (1 - out); shapes as out."""
    dx: Floats = dout * out * (1 - out)
    return dx


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), element by element; the shape and dtype of x."""
    x = x.contiguous()
    out = _C.empty(x.shape, x.dtype)
    _C.sigmoid_forward(rows(out), rows(x.array))

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is not None:
            _C.sigmoid_backward(rows(dx.out()), rows(dout), rows(out))

    return record(out, (x,), backward)
