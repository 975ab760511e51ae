"""y = x / sqrt(mean(x^2) + eps) * weight.

Zhang and Sennrich, "Root mean square layer normalization", 2019, equation 4.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
