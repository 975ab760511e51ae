"""Sum, mean, maximum or sum of squares of each row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]

_REDUCE: dict[str, Callable[[Floats], Floats]] = {
    "sum": lambda x: x.sum(axis=1),
    "mean": lambda x: x.mean(axis=1),
    "max": lambda x: x.max(axis=1),
    "sum_of_squares": lambda x: (x * x).sum(axis=1),
}
# d op / dx; equal maxima of a row share its gradient evenly
_SLOPE: dict[str, Callable[[Floats, Floats], Floats]] = {
    "sum": lambda x, top: np.ones_like(x),
    "mean": lambda x, top: np.full_like(x, 1 / x.shape[1]),
    "max": lambda x, top: top / top.sum(axis=1, keepdims=True),
    "sum_of_squares": lambda x, top: 2 * x,
}


def reference_forward(x: Floats, op: str) -> Floats:
    """The twin: x (rows, cols) -> (rows); op is sum, mean, max or sum_of_squares."""
    return _REDUCE[op](x)


def reference_backward(dout: Floats, x: Floats, op: str) -> Floats:
    """dx (rows, cols) for dout (rows)."""
    top = (x == x.max(axis=1, keepdims=True)).astype(x.dtype)
    return dout[:, None] * _SLOPE[op](x, top)


def total(x: Tensor) -> Tensor:
    """The sum of all elements, shape (1,) float32."""
    whole = x.contiguous()
    out = _C.empty((1,))
    _C.reduce(out, whole.array.view((1, x.size), (x.size, 1), 0), "sum")

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is not None:
            spread = dout.view(x.shape, (0,) * x.ndim, 0)
            _C.elementwise(dx.out(), spread, None, "copy", 0.0)

    return record(out, (whole,), backward)


def sum_dim(x: Array, dim: int) -> Array:
    """Sum of one dimension, which stays with size 1: one reduction per index before it."""
    shape, strides = x.shape, x.strides
    outer, inner = int(np.prod(shape[:dim])), int(np.prod(shape[dim + 1 :]))
    out = _C.empty((*shape[:dim], 1, *shape[dim + 1 :]))
    if inner == 1 and dim > 0:
        flat = x.view((outer, shape[dim]), (strides[dim - 1], strides[dim]), 0)
        _C.reduce(out.view((outer,), (1,), 0), flat, "sum")
        return out
    for i in range(outer):
        columns = x.view((inner, shape[dim]), (1, inner), i * shape[dim] * inner)
        _C.reduce(out.view((inner,), (1,), i * inner), columns, "sum")
    return out
