"""adamw: kernels against the twin, over many steps too."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import verify

from gristmill.backend import _C
from gristmill.lab.cases.adamw import CONSTANTS, cases, step_of
from gristmill.ops.adamw import reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_a_quadratic_is_minimised() -> None:
    """300 steps on (x - 3)^2 end where the twin ends, near the decayed minimum."""
    n = 21
    rng = np.random.default_rng(20)
    arrays = [rng.normal(size=n).astype(np.float32), *np.zeros((2, n), np.float32)]
    twin = [x.astype(np.float64) for x in arrays]
    handles = [_C.from_numpy(x) for x in arrays]
    for t in range(1, 301):
        step = step_of(t, rate=0.05, scale=1.0)
        grad = 2 * (arrays[0] - np.float32(3))
        _C.adamw(*handles, _C.from_numpy(grad), _C.from_numpy(step.astype(np.float32)), *CONSTANTS)
        twin = list(reference_forward(*twin, 2 * (twin[0] - 3), step, *CONSTANTS))
    np.testing.assert_allclose(arrays[0], twin[0], rtol=1e-4)
    assert np.abs(arrays[0] - 3).max() < 0.2


def test_the_first_step_has_the_size_of_the_learning_rate() -> None:
    """With the corrections of t = 1 the step is lr sign(g). Kingma and Ba, 2015, section 2.1."""
    g = np.array([1e-3, -5.0, 2.0])
    zero = np.zeros(3)
    param, _, _ = reference_forward(zero, zero, zero, g, [0.01, 1, 0.1, 0.001], 0.9, 0.999, 0, 0)
    np.testing.assert_allclose(param, -0.01 * np.sign(g), rtol=1e-12)
