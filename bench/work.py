"""FLOP and bytes of a call, for the roofline: what an entry computes at least, and touches once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gristmill.backend import _C

# FLOP an element of the largest array by the formula: a sum, product or quotient is one, and so is
# exp, tanh, erf or a square root
FLOPS = {
    "gelu_forward": 5, "gelu_backward": 9, "silu_forward": 4, "silu_backward": 8,
    "swiglu_forward": 5, "swiglu_backward": 11, "rmsnorm_forward": 4, "rmsnorm_backward": 8,
    "layernorm_forward": 7, "layernorm_backward": 11, "rope": 3, "softmax_forward": 4,
    "cross_entropy_forward": 3, "cross_entropy_backward": 4, "dropout": 2, "reduce": 1,
    "relu_forward": 1, "relu_backward": 1, "tanh_forward": 1, "tanh_backward": 3,
    "sigmoid_forward": 3, "sigmoid_backward": 3, "mse_forward": 3, "mse_backward": 2,
    "elementwise": 1, "adamw": 13, "sgd": 4, "random": 12,
}  # fmt: skip


def intensity(case: Any, calls: Sequence[Any]) -> float | None:
    """FLOP a byte of what a case calls; None where it is not known."""
    if case.intensity is not None:
        return float(case.intensity)
    arrays = [{id(x): x for x in c.arguments if isinstance(x, _C.Array)}.values() for c in calls]
    touched = sum(a.nbytes for some in arrays for a in some)
    if not touched:
        return None
    if case.unit == "GFLOP":
        return float(case.amount * 1e9 / touched)
    if not all(c.entry in FLOPS for c in calls):
        return None
    flops = sum(
        FLOPS[c.entry] * max(a.size for a in some)
        for c, some in zip(calls, arrays, strict=True)
        if some
    )
    return float(flops / (case.amount * 1e9))
