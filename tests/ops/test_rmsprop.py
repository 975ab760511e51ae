"""rmsprop: kernels against the twin, centred or not, with and without momentum and decay."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import verify

from gristmill.backend import _C
from gristmill.lab.cases.rmsprop import cases
from gristmill.ops.rmsprop import reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_a_constant_gradient_moves_by_the_rate() -> None:
    """The average of g^2 tends to g^2, so the move tends to lr sign(g)."""
    param, square, g = np.zeros(2), np.zeros(2), np.array([3.0, -1e-3])
    for _ in range(300):
        before = param
        param, square, _, _ = reference_forward(param, square, None, None, g, [0.1, 1], 0.9, 0)
    np.testing.assert_allclose(param - before, -0.1 * np.sign(g), rtol=1e-12)


def test_momentum_needs_its_array() -> None:
    a = [_C.empty((3,)) for _ in range(3)]
    with pytest.raises(ValueError, match="momentum needs a velocity"):
        _C.rmsprop(a[0], a[1], None, None, a[2], _C.empty((2,)), 0.9, 1e-8, 0.0, 0.5)
