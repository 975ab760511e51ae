"""sgd: kernels against the twin, with and without momentum, dampening, decay and Nesterov."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from cases import SIZES, Case, U, given, wanted
from oracle import verify

from gristmill.ops.sgd import reference_forward

# momentum, dampening, weight decay, Nesterov
OPTIONS = [
    (0.0, 0.0, 0.0, 0),
    (0.0, 0.0, 0.1, 0),
    (0.9, 0.0, 0.0, 0),
    (0.9, 0.5, 0.1, 0),
    (0.9, 0.0, 0.1, 1),
]


def cases() -> Iterator[Case]:
    """Ten roundings of the sum of all magnitudes that enter a result."""
    rng = np.random.default_rng(21)
    for (n, first), options in product([(n, n % 2) for n in (*SIZES, 20000)], OPTIONS):
        momentum, dampening, decay = (float(np.float32(x)) for x in options[:3])
        param = wanted((n,), start=rng.normal(size=n), accumulate=False)
        velocity = wanted((n,), start=rng.normal(size=n), accumulate=False)
        grad, step = given(rng.normal(size=n)), given([0.05, 0.7, first])
        after = reference_forward(
            param.values, velocity.values, grad.values, step.values, momentum, dampening, decay,
            bool(options[3]),
        )  # fmt: skip
        g = np.abs(0.7 * grad.values) + decay * np.abs(param.values)
        pushed = momentum * np.abs(velocity.values) + 2 * g
        expected = {"param": (after[0], 10 * U * (np.abs(param.values) + 0.05 * (pushed + g)))}
        if momentum:
            expected["velocity"] = after[1], 10 * U * pushed
        yield Case(
            "sgd",
            f"{n}-" + "-".join(map(str, options)) + "-first" * first,
            {
                "param": param,
                "velocity": velocity if momentum else None,
                "grad": grad,
                "step": step,
                "n": n,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": decay,
                "nesterov": options[3],
            },
            expected,
        )


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
