"""Cases of relu: calls with the twin's result, which a kernel must give exactly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.activation import activation_cases
from gristmill.lab.case import Case
from gristmill.ops.relu import reference_backward, reference_forward

# the least numbers around 0, the largest ones
EDGES = (0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 3e38, -3e38, np.inf, -np.inf)


def cases() -> Iterator[Case]:
    exact = (lambda x, dtype: np.zeros_like(x), np.zeros_like)
    yield from activation_cases("relu", (reference_forward, reference_backward), exact, EDGES)
