"""tanh(x), the hyperbolic tangent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]


def reference_forward(x: Floats) -> Floats:
    """The twin: x (any shape) -> the same shape."""
    out: Floats = np.tanh(x)
    return out


def reference_backward(dout: Floats, out: Floats) -> Floats:
    """dx = dout (1 - out^2); shapes as out."""
    dx: Floats = dout * (1 - out * out)
    return dx


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, element by element; the shape and dtype of x."""
    x = x.contiguous()
    out = _C.empty(x.shape, x.dtype)
    _C.tanh_forward(rows(out), rows(x.array))

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is not None:
            _C.tanh_backward(rows(dx.out()), rows(dout), rows(out))

    return record(out, (x,), backward)
