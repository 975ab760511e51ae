"""gelu(x) = x Phi(x), Phi the normal distribution, or GPT-2's approximation of it.

Hendrycks and Gimpel, "Gaussian error linear units", 2016. Approximated, Phi(x) is
(1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2: what Hugging Face calls gelu_new.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, cheap, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]

_C1, _C3 = math.sqrt(2 / math.pi), 0.044715
APPROXIMATE = ("none", "tanh")


def phi(x: Floats, approximate: bool) -> tuple[Floats, Floats]:
    """Phi(x) and its slope; Phi from the tail below -|x|, which 1 - Phi(|x|) would lose."""
    if approximate:
        tail = 1 / (1 + np.exp(2 * _C1 * (np.abs(x) + _C3 * np.abs(x) ** 3)))
        slope = tail * (1 - tail) * 2 * _C1 * (1 + 3 * _C3 * x * x)
    else:
        tail = np.vectorize(math.erfc, otypes=[np.float64])(np.abs(x) / math.sqrt(2)) / 2
        slope = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return np.where(x > 0, 1 - tail, tail), slope


def reference_forward(x: Floats, approximate: bool = False) -> Floats:
    """The twin: x (any shape) -> the same shape."""
    out: Floats = x * phi(x, approximate)[0]
    return out


def reference_backward(dout: Floats, x: Floats, approximate: bool = False) -> Floats:
    """d gelu/dx = Phi(x) + x Phi'(x), times dout; shapes as x."""
    value, slope = phi(x, approximate)
    dx: Floats = dout * (value + x * slope)
    return dx


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x Phi(x) element by element; the shape and dtype of x. `approximate`: "none" or "tanh"."""
    if approximate not in APPROXIMATE:
        raise ValueError(f"gelu: approximate {approximate!r} given, allowed are {APPROXIMATE}")
    tanh = approximate == "tanh"
    out = _C.empty(x.shape, x.dtype)
    _C.gelu_forward(rows(out), rows(x.array), tanh)

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is not None:
            _C.gelu_backward(rows(dx.out()), rows(dout), rows(x.array), tanh)

    def again() -> Array:
        anew = _C.empty(x.shape, x.dtype)
        _C.gelu_forward(rows(anew), rows(x.array), tanh)
        return anew

    return cheap(record(out, (x,), backward), again)
