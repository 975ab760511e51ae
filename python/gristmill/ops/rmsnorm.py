"""y = x / sqrt(mean(x^2) + eps) * weight.

Zhang and Sennrich, "Root mean square layer normalization", 2019, equation 4.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, cheap, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]


def reference_forward(x: Floats, weight: Floats, eps: float) -> tuple[Floats, Floats]:
    """The twin: x (rows, cols), weight (cols) -> out (rows, cols) and rstd (rows)."""
    rstd = 1 / np.sqrt((x * x).mean(axis=1) + eps)
    return x * rstd[:, None] * weight, rstd


def reference_backward(
    dout: Floats, x: Floats, weight: Floats, rstd: Floats
) -> tuple[Floats, Floats]:
    """dx = r (g - x r^2 mean(g x)) with g = dout weight, (rows, cols); dweight (cols)."""
    r, g = rstd[:, None], dout * weight
    dx = r * (g - x * r * r * (g * x).mean(axis=1, keepdims=True))
    return dx, (dout * x * r).sum(axis=0)


def rmsnorm(x: Tensor, weight: Tensor, eps: float = 1e-6, out_dtype: str | None = None) -> Tensor:
    """x (..., cols), weight (cols,) float32 -> the shape of x, of `out_dtype` or its own dtype."""
    shape, dtype = x.shape, out_dtype or x.dtype
    out = _C.empty(shape, dtype)
    flat = rows(x.array)
    rstd = _C.empty((flat.shape[0],))
    _C.rmsnorm_forward(rows(out), rstd, flat, weight.array, eps)

    def backward(dout: Array, dx: Slot | None, dw: Slot | None) -> None:
        to_x = _C.empty(x.shape, x.dtype) if dx is None else dx.out()
        to_w = _C.empty(weight.shape) if dw is None else dw.out()
        _C.rmsnorm_backward(rows(to_x), to_w, rows(dout), flat, weight.array, rstd)

    def again() -> Array:
        anew = _C.empty(shape, dtype)
        _C.rmsnorm_forward(rows(anew), None, flat, weight.array, eps)
        return anew

    return cheap(record(out, (x, weight), backward), again)
