"""Cases of reduce: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, Case, Floats, gamma, given, wanted
from gristmill.ops.reduce import reference_forward

OPS = ("sum", "mean", "max", "sum_of_squares")

CHUNK = 16384  # kReduceChunk

SHAPES = [(1, n) for n in SIZES] + [
    (3, 17),
    (70, 33),
    (1, CHUNK),
    (2, CHUNK + 1),
    (1, 3 * CHUNK - 1),
]


def bound(op: str, x: Floats) -> Floats:
    """Lanes, their tree, the sum over chunks; squares and the mean's quotient round once more."""
    if op == "max":
        return np.zeros(len(x))
    terms = x * x if op == "sum_of_squares" else np.abs(x)
    size = terms.mean(axis=1) if op == "mean" else terms.sum(axis=1)
    chunks = -(-x.shape[1] // CHUNK)
    return gamma(-(-min(x.shape[1], CHUNK) // 16) + 4 + chunks + 2) * size


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(15)
    for op in OPS:
        for dtype, layout in [
            ("float32", "plain"),
            ("float32", "transposed"),
            ("bfloat16", "gaps"),
        ]:
            for rows, cols in SHAPES if layout == "plain" else [*SHAPES[::2], (300, 33)]:
                x = given(rng.normal(size=(rows, cols)) - 0.2, dtype, layout)
                start = np.ones(rows) if cols in (17, 33) else None
                y = reference_forward(x.values, op)
                yield Case(
                    "reduce",
                    f"{op}-{rows}x{cols}-{dtype}-{layout}",
                    {
                        "out": wanted((rows,), layout="spread", start=start),
                        "x": x,
                        "rows": rows,
                        "cols": cols,
                        "op": op,
                    },
                    {"out": (y, bound(op, x.values))},
                )
