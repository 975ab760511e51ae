"""silu(gate) * up. Shazeer, "GLU variants improve transformer", 2020, equation 5."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array, fused
from gristmill.ops import silu as _silu

Floats = npt.NDArray[np.float64]


def reference_forward(gate: Floats, up: Floats) -> Floats:
    """The twin: gate and up (any equal shape) -> the same shape."""
    return _silu.reference_forward(gate) * up


def reference_backward(dout: Floats, gate: Floats, up: Floats) -> tuple[Floats, Floats]:
    """dgate = dout up silu'(gate) and dup = dout silu(gate); shapes as gate."""
    return _silu.reference_backward(dout * up, gate), dout * _silu.reference_forward(gate)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, element by element; both of one shape and dtype.

    Composed of the plain silu and a product where silu was replaced by a user's kernel.
    """
    if not (fused("swiglu_forward") and fused("swiglu_backward")):
        return _silu.silu(gate) * up
    out = _C.empty(gate.shape, gate.dtype)
    _C.swiglu_forward(rows(out), rows(gate.array), rows(up.array))

    def backward(dout: Array, dgate: Slot | None, dup: Slot | None) -> None:
        to_gate, to_up = (
            rows(_C.empty(x.shape, x.dtype) if slot is None else slot.out())
            for slot, x in ((dgate, gate), (dup, up))
        )
        _C.swiglu_backward(to_gate, to_up, rows(dout), rows(gate.array), rows(up.array))

    return record(out, (gate, up), backward)
