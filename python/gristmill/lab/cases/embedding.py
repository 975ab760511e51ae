"""Cases of embedding: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, Case, gamma, given, wanted
from gristmill.ops.embedding import reference_backward, reference_forward

# rows, cols, V: around the 64 columns one thread takes in the backward pass
SHAPES = [(5, n, 7) for n in SIZES] + [(1, 64, 1), (130, 63, 3), (70, 65, 50), (200, 130, 11)]

DTYPES = [("float32", "float32"), ("bfloat16", "bfloat16"), ("float32", "bfloat16")]


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(11)
    for stored, computed in DTYPES:
        for layout in ("plain", "gaps"):
            for rows, cols, v in SHAPES:
                ids = given(rng.integers(0, v, rows), "int32", "spread" if rows == 5 else "plain")
                weight = given(rng.normal(size=(v, cols)), stored, layout)
                dout = given(rng.normal(size=(rows, cols)), computed, layout)
                name = f"{rows}x{cols}-{v}-{stored}-{computed}-{layout}"
                sizes = {"rows": rows, "cols": cols, "V": v}
                start = np.ones((rows, cols)) if cols == 17 else None
                yield Case(
                    "embedding_forward",
                    name,
                    {
                        "out": wanted((rows, cols), computed, layout, start),
                        "weight": weight,
                        "ids": ids,
                        **sizes,
                    },
                    {"out": (reference_forward(weight.values, ids.read()), 0.0)},
                )
                counts = np.bincount(ids.read(), minlength=v)[:, None]
                total = reference_backward(np.abs(dout.values), ids.read(), v)
                before = np.ones((v, cols)) if cols == 17 else None
                yield Case(
                    "embedding_backward",
                    name,
                    {
                        "dweight": wanted((v, cols), "float32", layout, before),
                        "dout": dout,
                        "ids": ids,
                        **sizes,
                    },
                    {
                        "dweight": (
                            reference_backward(dout.values, ids.read(), v),
                            gamma(counts) * (total + (cols == 17)),
                        )
                    },
                )
