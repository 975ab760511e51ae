"""Cases of silu: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, Case, given, wanted
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
