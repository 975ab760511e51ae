"""adamw: kernels against the twin, over many steps too."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cases import SIZES, Case, Floats, U, given, wanted
from oracle import verify

from gristmill.backend import _C
from gristmill.ops.adamw import reference_forward

# beta1, beta2, eps, weight decay, as the kernel gets them
CONSTANTS = tuple(float(np.float32(x)) for x in (0.9, 0.95, 1e-8, 0.1))
NAMES = ("beta1", "beta2", "eps", "weight_decay")


def step_of(t: int, rate: float = 3e-3, scale: float = 0.7) -> Floats:
    beta1, beta2 = CONSTANTS[:2]
    return np.array([rate, scale, 1 - beta1**t, 1 - beta2**t], np.float32).astype(np.float64)


def bounds(param: Floats, m: Floats, v: Floats, g: Floats, step: Floats) -> tuple[Floats, ...]:
    """m: two roundings of each term and the sum; v: three. The step m / (sqrt(v) + eps) carries
    both: half the relative error of v, and six roundings of its own."""
    beta1, _, eps, _ = CONSTANTS
    rate, scale, c1, c2 = step
    p2, m2, v2 = reference_forward(param, m, v, g, step, *CONSTANTS)
    dm = 4 * U * (beta1 * np.abs(m) + (1 - beta1) * np.abs(g * scale))
    denominator = np.sqrt(v2 / c2) + eps
    moved = rate * (np.abs(m2) / c1) / denominator
    dp = 3 * U * np.abs(param) + U * np.abs(p2) + 12 * U * moved + rate * dm / c1 / denominator
    return dp, dm, 6 * U * v2


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(19)
    for n in (*SIZES, 16384 + 17):
        for t in (1, 1000):
            values = rng.normal(size=n), 0.1 * rng.normal(size=n), rng.random(n) ** 4
            param, m, v = (wanted((n,), start=x, accumulate=False) for x in values)
            grad, step = given(rng.normal(size=n)), step_of(t)
            before = param.values, m.values, v.values, grad.values
            after = reference_forward(*before, step, *CONSTANTS)
            yield Case(
                "adamw",
                f"{n}-step-{t}",
                {
                    **{"param": param, "m": m, "v": v, "grad": grad, "step": given(step), "n": n},
                    **dict(zip(NAMES, CONSTANTS, strict=True)),
                },
                dict(
                    zip(
                        ("param", "m", "v"),
                        zip(after, bounds(*before, step), strict=True),
                        strict=True,
                    )
                ),
            )


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
