"""Zeroes elements with probability p and divides the others by 1 - p.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014. The
mask is a pure function of (seed, stream, index), so the backward pass draws it again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.ops.init import uniform

Floats = npt.NDArray[np.float64]


def reference_forward(x: Floats, seed: int, stream: int, p: float) -> Floats:
    """The twin: x (n) -> (n); element i is kept when uniform(seed, stream, i) >= p."""
    keep = uniform(seed, stream, len(x)) >= np.float32(p)
    return np.where(keep, x / (1 - p), 0)


def reference_backward(dout: Floats, seed: int, stream: int, p: float) -> Floats:
    """dx (n): the same mask and factor on dout (n)."""
    return reference_forward(dout, seed, stream, p)
