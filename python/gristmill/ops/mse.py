"""The mean of (x - target)^2. Bishop, "Pattern recognition and machine learning", 2006, 1.2."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]


def reference_forward(x: Floats, target: Floats) -> Floats:
    """The twin: x and target of one shape -> the mean over all elements, shape (1,)."""
    return np.array([np.square(x - target).mean()])


def reference_backward(dloss: Floats, x: Floats, target: Floats) -> tuple[Floats, Floats]:
    """dx = 2 (x - target) dloss / size and dtarget = -dx, in the shape of x; dloss (1,)."""
    dx: Floats = 2 * (x - target) * dloss[0] / x.size
    return dx, -dx


def mse(x: Tensor, target: Tensor) -> Tensor:
    """The mean of (x - target)^2 over all elements, shape (1,), in the dtype of both (as PyTorch's
    mse_loss; summed in float32).

    Raises ValueError when shapes differ (nothing broadcasts), TypeError when dtypes do.
    """
    if x.shape != target.shape:
        raise ValueError(f"mse: target has shape {target.shape}, expected {x.shape}, that of x")
    if x.dtype != target.dtype:
        raise TypeError(f"mse: dtypes {x.dtype} and {target.dtype} differ; convert one with .to()")
    x, target = x.contiguous(), target.contiguous()
    a, b = _flat(x.array), _flat(target.array)
    out = _C.empty((1,), x.dtype)
    _C.mse_forward(out, a, b)

    def backward(dout: Array, dx: Slot | None, dtarget: Slot | None) -> None:
        da, db = (None if slot is None else _flat(slot.out()) for slot in (dx, dtarget))
        _C.mse_backward(da, db, dout, a, b)

    return record(out, (x, target), backward)


def _flat(a: Array) -> Array:
    return a.view((a.size,), (1,), 0)
