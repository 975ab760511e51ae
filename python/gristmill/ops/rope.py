"""Rotary positions: the pair (x_i, x_{i + D/2}) turns by position * theta^(-2i/D).

Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021, equation 34, with
halves as in Hugging Face's Llama instead of neighbours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


def reference_forward(
    x: Floats,
    cos: Floats,
    sin: Floats,
    start: Ints | None = None,
    inverse: bool = False,
    interleaved: bool = False,
) -> Floats:
    """The twin: x (B, T, H, D), cos and sin (positions, D/2) -> (B, T, H, D).

    Row t of batch b stands at position start[b] + t (start None: 0). `interleaved`: x has the pairs
    (2i, 2i + 1), as GGUF stores them; the result always has halves. `inverse` turns back.
    """
    batch, t, _, d = x.shape
    first = np.zeros(batch, dtype=np.int64) if start is None else np.asarray(start)
    position = first[:, None] + np.arange(t)
    c, s = cos[position][:, :, None], sin[position][:, :, None]  # (B, T, 1, D/2)
    if inverse:
        s = -s
    if interleaved:
        lo, hi = x[..., 0::2], x[..., 1::2]
    else:
        lo, hi = x[..., : d // 2], x[..., d // 2 :]
    return np.concatenate([lo * c - hi * s, hi * c + lo * s], axis=-1)


def reference_backward(dout: Floats, cos: Floats, sin: Floats, start: Ints | None = None) -> Floats:
    """dx (B, T, H, D) of the halves' rotation: its transpose, which is to turn back."""
    return reference_forward(dout, cos, sin, start, inverse=True)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, T, H, D) turned by its position, T at most the rows of cos and sin (positions, D/2)."""
    out = _C.empty(x.shape, x.dtype)
    _C.rope(out, x.array, cos.array, sin.array, None, False, False)

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is not None:
            _C.rope(dx.out(), dout, cos.array, sin.array, None, True, False)

    return record(out, (x,), backward)
