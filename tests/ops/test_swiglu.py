"""swiglu: kernels against the twin, and the twin against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import check_gradient, verify

from gristmill.lab.cases.swiglu import cases
from gristmill.ops.silu import reference_forward as silu
from gristmill.ops.swiglu import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(4)
    gate, up, dout = rng.normal(0, 2, (3, 4, 5))
    gradients = reference_backward(dout, gate, up)
    check_gradient(reference_forward, gradients, [gate, up], dout)


def test_without_a_gate_it_is_silu() -> None:
    x = np.linspace(-5, 5, 11)
    np.testing.assert_array_equal(reference_forward(x, np.ones(11)), silu(x))
