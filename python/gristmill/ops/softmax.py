"""softmax(x) = exp(x) / sum(exp(x)) over the last dimension. Bishop, "Pattern recognition and
machine learning", 2006, 4.62.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]


def reference_forward(x: Floats) -> Floats:
    """The twin: x (rows, cols) -> the same shape; a row of nothing but -inf gives 0."""
    top = x.max(axis=-1, keepdims=True)
    e = np.exp(x - np.where(top == -np.inf, 0, top))
    total = e.sum(axis=-1, keepdims=True)
    out: Floats = e / np.where(total == 0, 1, total)
    return out


def reference_backward(dout: Floats, out: Floats) -> Floats:
    """dx = out (dout - sum(out dout)); shapes as out."""
    dx: Floats = out * (dout - (out * dout).sum(axis=-1, keepdims=True))
    return dx


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """x (..., cols) -> the same shape and dtype; every row of the last dimension sums to 1.

    Differs from torch in one thing: a row of nothing but -inf (all masked) gives 0, not NaN.
    Raises ValueError for another dimension than the last.
    """
    if dim not in (-1, x.ndim - 1):
        raise ValueError(
            f"softmax: dim {dim} given, allowed is the last one (-1); "
            f"x.transpose({dim}, -1).contiguous() brings it there"
        )
    out = _C.empty(x.shape, x.dtype)
    _C.softmax_forward(rows(out), rows(x.array))

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is not None:
            _C.softmax_backward(rows(dx.out()), rows(dout), rows(out))

    return record(out, (x,), backward)
