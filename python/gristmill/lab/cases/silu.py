"""Cases of silu: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, TINY, Case, Floats, U, given, terms, wanted
from gristmill.ops.silu import reference_backward, reference_forward

LAYOUTS = [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "plain"), ("bfloat16", "gaps")]


def forward_bound(x: Floats, dtype: str) -> Floats:
    """Sigmoid: exp (6 U), a sum and a quotient; then one product. Where exp(-x) overflows float32
    the result is 0 for a value of at most 104 e^-89."""
    return (9 * U + terms(dtype)) * np.abs(reference_forward(x)) + 200 * TINY


def backward_bound(dout: Floats, x: Floats, dtype: str) -> Floats:
    """Of the magnitudes of dout s and dout x s (1 - s), which may cancel."""
    s = 1 / (1 + np.exp(-x))
    size = np.abs(dout) * (s + np.abs(x) * s * (1 - s))
    return (32 * U + terms(dtype)) * size + 200 * TINY


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(1)
    for dtype, layout in LAYOUTS:
        for rows, cols in [(1, n) for n in SIZES] + [(3, 17), (17, 33), (65, 100)]:
            name = f"{rows}x{cols}-{dtype}-{layout}"
            x, dout = (given(rng.normal(0, 4, (rows, cols)), dtype, layout) for _ in range(2))
            x.read().reshape(-1)[:1] = given([-100.0], dtype).read()
            start = rng.normal(size=(rows, cols)) if rows == 3 else None
            y = reference_forward(x.values)
            yield Case(
                "silu_forward",
                name,
                {
                    "out": wanted((rows, cols), dtype, layout, start),
                    "x": x,
                    "rows": rows,
                    "cols": cols,
                },
                {"out": (y, forward_bound(x.values, dtype))},
            )
            dx = reference_backward(dout.values, x.values)
            yield Case(
                "silu_backward",
                name,
                {
                    "dx": wanted((rows, cols), dtype, layout, start),
                    "dout": dout,
                    "x": x,
                    "rows": rows,
                    "cols": cols,
                },
                {"dx": (dx, backward_bound(dout.values, x.values, dtype))},
            )
