"""silu: kernels against the twin, and the twin against finite differences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cases import SIZES, Case, given, wanted
from oracle import check_gradient, verify

from gristmill.lab.checking import TWINS
from gristmill.ops.silu import reference_backward, reference_forward

FORWARD, BACKWARD = TWINS["silu_forward"].bound, TWINS["silu_backward"].bound  # derived there
LAYOUTS = [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "plain"), ("bfloat16", "gaps")]


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
                {"out": (y, FORWARD(x.values))},
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
                {"dx": (dx, BACKWARD(dout.values, x.values))},
            )


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(2)
    x, dout = rng.normal(0, 3, (2, 4, 5))
    check_gradient(reference_forward, [reference_backward(dout, x)], [x], dout)
