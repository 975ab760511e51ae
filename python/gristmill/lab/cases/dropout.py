"""Cases of dropout: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, Case, U, given, wanted
from gristmill.ops.dropout import reference_forward

BIG = 0x9E3779B97F4A7C15


def cases() -> Iterator[Case]:
    """Two roundings: the inverse of the share kept, and the product."""
    rng = np.random.default_rng(17)
    for dtype in ("float32", "bfloat16"):
        for n in (*SIZES, 64, 127, 129, 255, 257, 16384 + 300):
            for p in (0.0, 0.1, 0.9):
                x = given(rng.normal(size=n), dtype)
                y = reference_forward(x.values, BIG, 7, float(np.float32(p)))
                yield Case(
                    "dropout",
                    f"{n}-{p}-{dtype}",
                    {
                        "out": wanted((n,), dtype, start=np.ones(n) if n == 17 else None),
                        "x": x,
                        "key": given(np.array([BIG, 7], np.uint64).view(np.int64), "int64"),
                        "n": n,
                        "p": p,
                    },
                    {"out": (y, 2 * U * np.abs(y))},
                )
