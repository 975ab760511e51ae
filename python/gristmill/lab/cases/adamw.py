"""Cases of adamw: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, UB, Case, Floats, U, given, wanted
from gristmill.ops import adam, adamw

TWINS = {"adam": adam.reference_forward, "adamw": adamw.reference_forward}
BIG = 0x9E3779B97F4A7C15

# beta1, beta2, eps, weight decay, as the kernel gets them
CONSTANTS = tuple(float(np.float32(x)) for x in (0.9, 0.95, 1e-8, 0.1))

NAMES = ("beta1", "beta2", "eps", "weight_decay")


def step_of(t: int, rate: float = 3e-3, scale: float = 0.7) -> Floats:
    beta1, beta2 = CONSTANTS[:2]
    return np.array([rate, scale, 1 - beta1**t, 1 - beta2**t], np.float32).astype(np.float64)


def bounds(
    entry: str, param: Floats, m: Floats, v: Floats, g: Floats, step: Floats
) -> tuple[Floats, ...]:
    """m: two roundings of each term and the sum; v: three. The step m / (sqrt(v) + eps) carries
    both: half the relative error of v, and six roundings of its own. What Adam adds to the gradient
    rounds once more, by the size of both."""
    beta1, beta2, eps, decay = CONSTANTS
    rate, scale, c1, c2 = step
    p2, m2, v2 = TWINS[entry](param, m, v, g, step, *CONSTANTS)
    size = np.abs(g * scale) + (decay * np.abs(param) if entry == "adam" else 0)
    dm = (4 if entry == "adamw" else 5) * U * (beta1 * np.abs(m) + (1 - beta1) * size)
    dv = 6 * U * v2 + (4 * U * (1 - beta2) * size * size if entry == "adam" else 0)
    denominator = np.sqrt(v2 / c2) + eps
    moved = rate * (np.abs(m2) / c1) / denominator
    dp = 3 * U * np.abs(param) + U * np.abs(p2) + 12 * U * moved + rate * dm / c1 / denominator
    if entry == "adam":
        dp = dp + moved * (dv / v2)
    return dp, dm, dv


def one(entry: str, n: int, t: int, state: str, rng: np.random.Generator) -> Case:
    """A bfloat16 average is rounded at random, up or down: two units of its roundoff off, of which
    the case's own rounding is one."""
    values = rng.normal(size=n), 0.1 * rng.normal(size=n), rng.random(n) ** 4
    dtypes = "float32", state, state
    param, m, v = (
        wanted((n,), dtype, start=x, accumulate=False)
        for x, dtype in zip(values, dtypes, strict=True)
    )
    grad, step = given(rng.normal(size=n)), step_of(t)
    before = param.values, m.values, v.values, grad.values
    after = TWINS[entry](*before, step, *CONSTANTS)
    off = bounds(entry, *before, step)
    if state == "bfloat16":
        off = off[0], *(d + UB * (np.abs(x) + d) for d, x in zip(off[1:], after[1:], strict=True))
    return Case(
        entry,
        f"{n}-step-{t}" + (f"-{state}" if state != "float32" else ""),
        {
            **{"param": param, "m": m, "v": v, "grad": grad, "step": given(step)},
            "key": given(np.array([BIG, t], np.uint64).view(np.int64), "int64"),
            "n": n,
            **dict(zip(NAMES, CONSTANTS, strict=True)),
        },
        dict(zip(("param", "m", "v"), zip(after, off, strict=True), strict=True)),
    )


def cases_of(entry: str) -> Iterator[Case]:
    rng = np.random.default_rng(19)
    for state in ("float32", "bfloat16"):
        for n in (*SIZES, 16384 + 17):
            for t in (1, 1000):
                yield one(entry, n, t, state, rng)


def cases() -> Iterator[Case]:
    yield from cases_of("adamw")
