"""Cases of swiglu: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, TINY, Case, U, given, terms, wanted
from gristmill.ops.swiglu import reference_backward, reference_forward

LAYOUTS = [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "gaps")]


def cases() -> Iterator[Case]:
    """Bounds as for silu and one or two products more."""
    rng = np.random.default_rng(3)
    for dtype, layout in LAYOUTS:
        for rows, cols in [(1, n) for n in SIZES] + [(3, 17), (33, 50)]:
            shape, name = (rows, cols), f"{rows}x{cols}-{dtype}-{layout}"
            gate, up, dout = (given(rng.normal(0, 3, shape), dtype, layout) for _ in range(3))
            start = rng.normal(size=shape) if rows == 3 else None
            sizes = {"rows": rows, "cols": cols}
            y = reference_forward(gate.values, up.values)
            yield Case(
                "swiglu_forward",
                name,
                {"out": wanted(shape, dtype, layout, start), "gate": gate, "up": up, **sizes},
                {"out": (y, (10 * U + terms(dtype)) * np.abs(y) + 200 * TINY)},
            )
            dgate, dup = reference_backward(dout.values, gate.values, up.values)
            s = 1 / (1 + np.exp(-gate.values))
            size = np.abs(dout.values * up.values) * s * (1 + np.abs(gate.values) * (1 - s))
            yield Case(
                "swiglu_backward",
                name,
                {
                    "dgate": wanted(shape, dtype, layout, start),
                    "dup": wanted(shape, dtype, layout, start),
                    "dout": dout,
                    "gate": gate,
                    "up": up,
                    **sizes,
                },
                {
                    "dgate": (dgate, (33 * U + terms(dtype)) * size + 200 * TINY),
                    "dup": (dup, (10 * U + terms(dtype)) * np.abs(dup) + 200 * TINY),
                },
            )
