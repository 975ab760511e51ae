"""relu(x) = max(x, 0). Nair and Hinton, "Rectified linear units improve restricted Boltzmann
machines", 2010.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]


def reference_forward(x: Floats) -> Floats:
    """The twin: x (any shape) -> the same shape; NaN stays NaN."""
    out: Floats = np.maximum(x, 0)
    return out


def reference_backward(dout: Floats, out: Floats) -> Floats:
    """dx = dout where out is above 0 or NaN, else 0 (at 0 too, as in PyTorch); shapes as out."""
    return np.where(out <= 0, 0.0, dout)


def relu(x: Tensor) -> Tensor:
    """max(x, 0), element by element; the shape and dtype of x."""
    x = x.contiguous()
    out = _C.empty(x.shape, x.dtype)
    _C.relu_forward(rows(out), rows(x.array))

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is not None:
            _C.relu_backward(rows(dx.out()), rows(dout), rows(out))

    return record(out, (x,), backward)
