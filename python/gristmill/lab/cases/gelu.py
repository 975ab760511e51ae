"""Cases of gelu: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, TINY, Case, Floats, U, given, terms, wanted
from gristmill.ops.gelu import phi, reference_backward, reference_forward

LAYOUTS = [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "plain"), ("bfloat16", "gaps")]

# both ends of the clamp at 15, where the tail leaves float32, where x^3 and x^2 do
EDGES = (0.0, 14.9, -14.9, 15.1, -15.1, 10.0, -10.5, 1e13, -1e13, 1e20, -1e20, 1e-30)


def relative(x: Floats, approximate: bool, dtype: str) -> Floats:
    """Of Phi: exp in 4 U, the fitted quotient in 6; the argument of exp, x^2 / 2 rounded 2.2 times
    or what is approximated 4 times, counts itself as often; there exp, sum and quotient in 6. The
    quotient for bfloat16 is fitted to 2^-15."""
    u = np.minimum(np.abs(x), 15)
    if approximate:
        return terms(dtype) + (6 + 4 * 1.6 * (u + 0.045 * u**3)) * U
    return 1.25 * terms(dtype) + (10 + 1.1 * u**2) * U


def bounds(dout: Floats, x: Floats, approximate: bool, dtype: str) -> tuple[Floats, Floats]:
    """Of the forward pass (one product more) and of the backward pass (slope: 6 more, fma, product;
    approximated it has the tail twice). Where exp overflows, at |x| = 10.2, a tail of TINY / 4
    becomes 0, in the forward pass times 10.2, backward times 10.2 and 24, the slope of 2 u."""
    value, slope = phi(x, approximate)
    error, size = relative(x, approximate, dtype), np.abs(x)
    forward = (error + U) * size * value + 3 * TINY
    backward = np.abs(dout) * ((2 * error + 8 * U) * (value + size * slope) + 80 * TINY)
    return forward, backward


def pair(name: str, x: Floats, dout: Floats, dtype: str, layout: str, approximate: int,
         add: bool = False) -> Iterator[Case]:  # fmt: skip
    x_in, d_in = given(x, dtype, layout), given(dout, dtype, layout)
    rows, cols = x.shape
    rest = {"rows": rows, "cols": cols, "approximate": approximate}
    start = np.random.default_rng(3).normal(size=x.shape) if add else None
    with np.errstate(over="ignore", invalid="ignore"):
        y = reference_forward(x_in.values, bool(approximate))
        dx = reference_backward(d_in.values, x_in.values, bool(approximate))
        forward, backward = bounds(d_in.values, x_in.values, bool(approximate), dtype)
    out = wanted(x.shape, dtype, layout, start)
    yield Case("gelu_forward", name, {"out": out, "x": x_in, **rest}, {"out": (y, forward)})
    out = wanted(x.shape, dtype, layout, start)
    yield Case(
        "gelu_backward", name, {"dx": out, "dout": d_in, "x": x_in, **rest}, {"dx": (dx, backward)}
    )


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(1)
    for approximate in (0, 1):
        kind = ("erf", "tanh")[approximate]
        for dtype, layout in LAYOUTS:
            for rows, cols in [(1, n) for n in SIZES] + [(3, 17), (17, 33), (65, 100)]:
                name = f"{kind}-{rows}x{cols}-{dtype}-{layout}"
                x, dout = rng.normal(0, 4, (rows, cols)), rng.normal(0, 4, (rows, cols))
                yield from pair(name, x, dout, dtype, layout, approximate, rows == 3)
            edges = np.array([EDGES])
            yield from pair(f"{kind}-edges-{dtype}-{layout}", edges, np.ones_like(edges), dtype,
                            layout, approximate)  # fmt: skip
