"""Cases of rmsprop: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from gristmill.lab.case import SIZES, Case, U, given, wanted
from gristmill.ops.rmsprop import reference_forward

# weight decay, momentum, centred
OPTIONS = [(0.0, 0.0, False), (0.1, 0.0, False), (0.0, 0.9, False), (0.1, 0.9, True)]


def one(n: int, decay: float, momentum: float, centred: bool, rng: np.random.Generator) -> Case:
    """Six roundings of the averages; the move has four of its own and half the error of the spread
    under the root, which a mean subtracted from it enlarges by square / spread."""
    decay, momentum, alpha, eps = (float(np.float32(x)) for x in (decay, momentum, 0.9, 1e-6))
    start = rng.normal(size=n), 1 + rng.random(n), 0.1 * rng.normal(size=n), rng.normal(size=n)
    param, square, mean, velocity = (wanted((n,), start=x, accumulate=False) for x in start)
    kept = {"mean": mean if centred else None, "velocity": velocity if momentum else None}
    grad, step = given(rng.normal(size=n)), given([0.05, 0.7])
    values = {k: v.values if v else None for k, v in kept.items()}
    after = reference_forward(
        param.values, square.values, values["mean"], values["velocity"], grad.values,
        list(step.values), alpha, eps, decay, momentum,
    )  # fmt: skip
    g = np.abs(0.7 * grad.values) + decay * np.abs(param.values)
    d_mean = 6 * U * (alpha * np.abs(mean.values) + (1 - alpha) * g)
    d_square = 8 * U * (alpha * square.values + (1 - alpha) * g * g)
    spread = after[1] - (0 if after[2] is None else after[2] ** 2)
    d_spread = d_square + (0 if after[2] is None else 2 * np.abs(after[2]) * d_mean)
    move = g / np.sqrt(spread)
    d_move = move * (6 * U + d_spread / spread)
    moved = move + momentum * np.abs(velocity.values)
    expected = {
        "param": (after[0], 2 * U * np.abs(param.values) + 0.05 * (d_move + 4 * U * moved)),
        "square": (after[1], d_square),
    }
    if after[2] is not None:
        expected["mean"] = after[2], d_mean
    if after[3] is not None:
        expected["velocity"] = after[3], d_move + 2 * U * moved
    return Case(
        "rmsprop",
        f"{n}-{decay:.1g}-{momentum:.1g}" + "-centred" * centred,
        {
            **{"param": param, "square": square, **kept, "grad": grad, "step": step, "n": n},
            **{"alpha": alpha, "eps": eps, "weight_decay": decay, "momentum": momentum},
        },
        expected,
    )


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(23)
    for n, options in product((*SIZES, 16384 + 17), OPTIONS):
        yield one(n, *options, rng)
