"""adamw: kernels against the twin, over many steps too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cases import Case, widen_bf16
from oracle import table, verify

from gristmill.backend import _C
from gristmill.lab.cases.adamw import CONSTANTS, cases, step_of
from gristmill.ops.adamw import reference_forward, rounded


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


def bf16_step(grad: npt.NDArray[np.float32], betas: tuple[float, float], seed: int) -> list[Any]:
    """m and v, from 0, after one step of a kernel."""
    n = len(grad)
    state = [np.zeros(n, np.uint16) for _ in range(2)]
    step = np.array([0, 1, 1, 1], np.float32)
    arrays = [np.zeros(n, np.float32), *state, grad, step]
    handles = [_C.from_numpy(x, x.dtype == np.uint16) for x in arrays]
    _C.adamw(*handles, *betas, 1e-8, 0.0, seed, 3)
    return state


@pytest.mark.parametrize("n", [1, 17, 300, 16384 + 77])
def test_averages_in_bfloat16_are_rounded_by_the_bytes_of_their_element(n: int) -> None:
    """With beta 0 m is g and v is g^2: exact where g has 12 bits, so the rounding is all."""
    g = np.random.default_rng(n).integers(-4095, 4096, n).astype(np.float32)
    for name in _C.tables():
        with table(name, 3):
            m, v = bf16_step(g, (0.0, 0.0), 9)
        np.testing.assert_array_equal(m, rounded(g, 9, 3))
        np.testing.assert_array_equal(v, rounded(g * g, 9, 3))


def test_rounding_at_random_has_the_right_mean() -> None:
    """Within five standard errors of a number between two of bfloat16."""
    n, x = 1 << 18, np.float32(1 + 0.3 / 128)
    m, _ = bf16_step(np.full(n, x, np.float32), (0.0, 0.0), 9)
    values = widen_bf16(m)
    assert set(np.unique(values)) == {1.0, 1 + 1 / 128}
    five = 5 * math.sqrt(0.3 * 0.7 / n) / 128
    assert abs(values.astype(np.float64).mean() - float(x)) < five + 0.5 / 256 / 128  # a threshold


def trained(state: str, betas: tuple[float, float]) -> float:
    """Mean squared error on all rows after 400 steps of 16 rows of a regression, rate falling."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(512, 32)).astype(np.float32)
    y = x @ rng.normal(size=32).astype(np.float32) + 0.5 * rng.normal(size=512).astype(np.float32)
    param = np.zeros(32, np.float32)
    dtype = np.uint16 if state == "bfloat16" else np.float32
    m, v = np.zeros(32, dtype), np.zeros(32, dtype)
    for t in range(1, 401):
        rows = rng.integers(0, 512, 16)
        grad = (x[rows].T @ (x[rows] @ param - y[rows]) / 8).astype(np.float32)
        step = np.array([0.05 * (1 - t / 401), 1, *(1 - b**t for b in betas)], np.float32)
        handles = [_C.from_numpy(a, a.dtype == np.uint16) for a in (param, m, v, grad, step)]
        _C.adamw(*handles, *betas, 1e-8, 0.0, 0, t)
    return float(np.mean((x @ param - y) ** 2))


@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999)])
def test_averages_in_bfloat16_train_as_well(betas: tuple[float, float]) -> None:
    """The error of the least squares is 0.23; both end within 2 % of each other."""
    exact, short = trained("float32", betas), trained("bfloat16", betas)
    assert exact < 0.3
    assert short == pytest.approx(exact, rel=0.02)


def test_a_small_change_of_an_average_in_bfloat16_is_not_lost() -> None:
    """v falls by 0.1 % a step, an eighth to a quarter of the distance of neighbours: after 2000
    steps it is 0.135 of what it was. Rounded to nearest it would not have moved."""
    n, beta = 4096, 0.999
    v = np.full(n, 0x3F80, np.uint16)  # 1
    m, param, grad = np.zeros(n, np.uint16), np.zeros(n, np.float32), np.zeros(n, np.float32)
    arrays = [param, m, v, grad, np.array([0, 1, 1, 1], np.float32)]
    handles = [_C.from_numpy(x, x.dtype == np.uint16) for x in arrays]
    for t in range(2000):
        _C.adamw(*handles, 0.9, beta, 1e-8, 0.0, 0, t)
    # thresholds in steps of 1/256 of a distance: 0.128 of it is off by at most 1/512, 1.5 %
    mean = widen_bf16(v).astype(np.float64).mean()
    assert mean == pytest.approx(beta**2000, rel=0.06)
