"""Cases of sigmoid: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.activation import activation_cases
from gristmill.lab.case import TINY, Case, Floats, U, gamma, terms
from gristmill.ops.sigmoid import reference_backward, reference_forward

# around the ends of the range of exp in float32, where the result is 1
EDGES = (0.0, 1e-30, 17.0, -17.0, 87.3, -87.4, 88.7, -88.8, 104.0, -104.0, np.inf, -np.inf)


def forward_bound(x: Floats, dtype: str) -> Floats:
    """exp (6 U), a sum, a quotient. Where exp(-x) overflows float32, past 88.7, a value below
    TINY becomes 0."""
    return (9 * U + terms(dtype)) * np.abs(reference_forward(x)) + TINY


def backward_bound(dx: Floats) -> Floats:
    """A difference, two products; out itself may be denormal."""
    return gamma(3) * np.abs(dx) + TINY


def cases() -> Iterator[Case]:
    yield from activation_cases(
        "sigmoid", (reference_forward, reference_backward), (forward_bound, backward_bound), EDGES
    )
