"""Zeroes elements with probability p and divides the others by 1 - p.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014. The
mask is a pure function of (seed, stream, index), so the backward pass draws it again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record
from gristmill.autograd import Slot
from gristmill.backend import _C, Array
from gristmill.ops.init import uniform

Floats = npt.NDArray[np.float64]


def reference_forward(x: Floats, seed: int, stream: int, p: float) -> Floats:
    """The twin: x (n) -> (n); element i is kept when uniform(seed, stream, i) >= p."""
    keep = uniform(seed, stream, len(x)) >= np.float32(p)
    return np.where(keep, x / (1 - p), 0)


def reference_backward(dout: Floats, seed: int, stream: int, p: float) -> Floats:
    """dx (n): the same mask and factor on dout (n)."""
    return reference_forward(dout, seed, stream, p)


def dropout(x: Tensor, p: float, seed: int, stream: int) -> Tensor:
    """x, elements zeroed with probability p, 0 <= p < 1, the others divided by 1 - p.

    The mask is a pure function of (seed, stream, index). x must be contiguous.
    """
    if not x.is_contiguous():
        raise ValueError(f"dropout: strides {x.strides} have gaps; call .contiguous() first")
    out = _C.empty(x.shape, x.dtype)
    _C.dropout(_flat(out), _flat(x.array), seed, stream, p)

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is not None:
            _C.dropout(_flat(dx.out()), _flat(dout), seed, stream, p)

    return record(out, (x,), backward)


def _flat(a: Array) -> Array:
    return a.view((a.size,), (1,), 0)
