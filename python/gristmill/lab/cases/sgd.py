"""Cases of sgd: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from gristmill.lab.case import SIZES, Case, U, given, wanted
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
