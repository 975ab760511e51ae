"""y = (x - mean) / sqrt(variance + eps) * weight + bias, each row by its own mean and variance.

Ba, Kiros and Hinton, "Layer normalization", 2016.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, cheap, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]


def reference_forward(
    x: Floats, weight: Floats, bias: Floats | float, eps: float
) -> tuple[Floats, Floats, Floats]:
    """The twin: x (rows, cols), weight, bias (cols) -> out (rows, cols), mean and rstd (rows)."""
    mean = x.mean(axis=1)
    centred = x - mean[:, None]
    rstd = 1 / np.sqrt((centred * centred).mean(axis=1) + eps)
    return centred * rstd[:, None] * weight + bias, mean, rstd


def reference_backward(
    dout: Floats, x: Floats, weight: Floats, mean: Floats, rstd: Floats
) -> tuple[Floats, Floats, Floats]:
    """dx = r (g - mean(g) - h mean(g h)) with g = dout weight, h = (x - mean) r; dweight, dbias."""
    r, g = rstd[:, None], dout * weight
    h = (x - mean[:, None]) * r
    dx = r * (g - g.mean(axis=1, keepdims=True) - h * (g * h).mean(axis=1, keepdims=True))
    return dx, (dout * h).sum(axis=0), dout.sum(axis=0)


def layernorm(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5,
    out_dtype: str | None = None,
) -> Tensor:  # fmt: skip
    """x (..., cols), weight and bias (cols,) float32 -> the shape of x, of `out_dtype` or its own
    dtype."""
    shape, dtype = x.shape, out_dtype or x.dtype
    out = _C.empty(shape, dtype)
    flat = rows(x.array)
    mean, rstd = _C.empty((flat.shape[0],)), _C.empty((flat.shape[0],))
    shift = None if bias is None else bias.array
    _C.layernorm_forward(rows(out), mean, rstd, flat, weight.array, shift, eps)

    def backward(dout: Array, dx: Slot | None, dw: Slot | None, db: Slot | None = None) -> None:
        to_x = _C.empty(x.shape, x.dtype) if dx is None else dx.out()
        to_w = _C.empty(weight.shape) if dw is None else dw.out()
        to_b = None if db is None else db.out()
        _C.layernorm_backward(rows(to_x), to_w, to_b, rows(dout), flat, weight.array, mean, rstd)

    def again() -> Array:
        anew = _C.empty(shape, dtype)
        _C.layernorm_forward(rows(anew), None, None, flat, weight.array, shift, eps)
        return anew

    return cheap(record(out, (x, weight) if bias is None else (x, weight, bias), backward), again)
