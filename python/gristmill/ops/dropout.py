"""Zeroes elements with probability p and divides the others by 1 - p.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014. The
mask is a pure function of (seed, stream, index), so the backward pass draws it again. Sixteen bits
decide for an element: p is taken as the nearest multiple of 2^-16 (below 1), and the factor is that
of the share really kept, so the expectation is exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record
from gristmill.autograd import Slot
from gristmill.backend import _C, Array
from gristmill.ops.init import philox

Floats = npt.NDArray[np.float64]


def dropped(p: float) -> int:
    """Of 65536 elements, how many are dropped: p to the nearest, at most 65535."""
    return min(65535, int(float(np.float32(p)) * 65536 + 0.5))


def halves(seed: int, stream: int, n: int) -> npt.NDArray[np.uint32]:
    """(n,) numbers below 2^16: of each 64 words of philox the lower halves, then the upper ones."""
    words = philox(seed, stream, -(-n // 128) * 64).reshape(-1, 1, 64)
    return np.concatenate([words & np.uint32(0xFFFF), words >> np.uint32(16)], 1).reshape(-1)[:n]


def reference_forward(x: Floats, seed: int, stream: int, p: float) -> Floats:
    """The twin: x (n) -> (n); element i is kept when halves(seed, stream, n)[i] >= dropped(p)."""
    keep = halves(seed, stream, len(x)) >= dropped(p)
    return np.where(keep, x / (1 - dropped(p) / 65536), 0)


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
