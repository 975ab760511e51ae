"""silu: kernels against the twin, and the twin against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import check_gradient, verify

from gristmill.lab.cases.silu import cases
from gristmill.ops.silu import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(2)
    x, dout = rng.normal(0, 3, (2, 4, 5))
    check_gradient(reference_forward, [reference_backward(dout, x)], [x], dout)
