"""sgd: kernels against the twin, with and without momentum, dampening, decay and Nesterov."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import verify

from gristmill.lab.cases.sgd import cases
from gristmill.ops.sgd import reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_the_velocity_of_a_constant_gradient() -> None:
    """v_t = 1 + 0.5 + 0.25 + ... -> 2, and the parameter moves by the sum of lr v."""
    param, velocity, g = np.zeros(1), np.zeros(1), np.ones(1)
    for t in range(40):
        param, velocity = reference_forward(param, velocity, g, [0.1, 1, t == 0], momentum=0.5)
    assert velocity[0] == pytest.approx(2)
    assert param[0] == pytest.approx(-0.1 * (40 * 2 - 2))
