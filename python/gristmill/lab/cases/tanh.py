"""Cases of tanh: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.activation import activation_cases
from gristmill.lab.case import Case, Floats, U, gamma
from gristmill.ops.tanh import reference_backward, reference_forward

# around the ends of 2^n for n = 0 and 1, where the result is 1, past the range of exp
EDGES = (
    0.0,
    -0.0,
    1e-30,
    0.173,
    -0.174,
    0.519,
    -0.52,
    4.0,
    9.0,
    -9.1,
    44.0,
    -45.0,
    1e20,
    np.inf,
    -np.inf,
)


def forward_bound(x: Floats, dtype: str) -> Floats:
    """3 ulp, in float32; of fewer terms for bfloat16, 6e-4 (core/math.h)."""
    short = 6e-4 if dtype == "bfloat16" else 0
    bound: Floats = (6 * U + short) * np.abs(reference_forward(x))
    return bound


def backward_bound(dx: Floats) -> Floats:
    """1 - out^2 in one rounding, a product."""
    bound: Floats = gamma(2) * np.abs(dx)
    return bound


def cases() -> Iterator[Case]:
    yield from activation_cases(
        "tanh", (reference_forward, reference_backward), (forward_bound, backward_bound), EDGES
    )
