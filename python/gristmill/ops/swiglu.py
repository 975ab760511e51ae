"""silu(gate) * up. Shazeer, "GLU variants improve transformer", 2020, equation 5."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.ops import silu as _silu

Floats = npt.NDArray[np.float64]


def reference_forward(gate: Floats, up: Floats) -> Floats:
    """The twin: gate and up (any equal shape) -> the same shape."""
    return _silu.reference_forward(gate) * up


def reference_backward(dout: Floats, gate: Floats, up: Floats) -> tuple[Floats, Floats]:
    """dgate = dout up silu'(gate) and dup = dout silu(gate); shapes as gate."""
    return _silu.reference_backward(dout * up, gate), dout * _silu.reference_forward(gate)
