"""Cases of adamw: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, Case, Floats, U, given, wanted
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
