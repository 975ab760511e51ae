"""silu: kernels against the twin, and the twin against finite differences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cases import SIZES, TINY, Case, Floats, U, given, wanted
from oracle import check_gradient, verify

from gristmill.ops.silu import reference_backward, reference_forward

# sigmoid: exp (6 U), a sum and a quotient; then one product. Where exp(-x) overflows float32 the
# result is 0 for a value of at most 104 e^-89.
FORWARD, BACKWARD = 9 * U, 32 * U
LAYOUTS = [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "plain"), ("bfloat16", "gaps")]


def backward_size(dout: Floats, x: Floats) -> Floats:
    """The sum of the magnitudes of dout s and dout x s (1 - s), which may cancel."""
    s = 1 / (1 + np.exp(-x))
    return np.abs(dout) * (s + np.abs(x) * s * (1 - s))


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
                {"out": (y, FORWARD * np.abs(y) + 200 * TINY)},
            )
            dx = reference_backward(dout.values, x.values)
            bound = BACKWARD * backward_size(dout.values, x.values) + 200 * TINY
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
                {"dx": (dx, bound)},
            )


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(2)
    x, dout = rng.normal(0, 3, (2, 4, 5))
    check_gradient(reference_forward, [reference_backward(dout, x)], [x], dout)
