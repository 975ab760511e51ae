"""Cases of rope: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import Case, Floats, Operand, U, given, wanted
from gristmill.ops.rope import reference_forward

POSITIONS = 40

SHAPES = [(1, 1, 1, 2), (2, 3, 1, 14), (1, 17, 2, 16), (3, 2, 3, 30), (2, 5, 2, 34), (1, 3, 1, 80)]


def turns(d: int, theta: float = 10000.0) -> tuple[Floats, Floats]:
    angle = np.arange(POSITIONS)[:, None] * theta ** (-2 * np.arange(d // 2) / d)
    return np.cos(angle), np.sin(angle)


def case(
    name: str, x: Operand, out: Operand, start: list[int] | None, inverse: int, interleaved: int
) -> Case:
    b, t, h, d = x.shape
    cos, sin = (given(table, layout="gaps") for table in turns(d))
    where = None if start is None else np.array(start)
    flags = bool(inverse), bool(interleaved)
    y = reference_forward(x.values, cos.values, sin.values, where, *flags)
    # two products and a sum: three roundings of |x0 cos| + |x1 sin|, both halves with a plus sign
    sizes = [np.abs(v) for v in (x.values, cos.values, sin.values)]
    low, high = (reference_forward(*sizes, where, sign, flags[1]) for sign in (True, False))
    size = np.concatenate([low[..., : d // 2], high[..., d // 2 :]], axis=-1)
    return Case(
        "rope",
        name,
        {
            "out": out,
            "x": "=out" if out.storage is x.storage else x,
            "cos": cos,
            "sin": sin,
            "start": None if start is None else given(start, "int64"),
            "B": b,
            "T": t,
            "H": h,
            "D": d,
            "positions": POSITIONS,
            "inverse": inverse,
            "interleaved": interleaved,
        },
        {"out": (y, 3 * U * size)},
    )


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(8)
    for dtype, layout in [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "gaps")]:
        for shape in SHAPES:
            for inverse, interleaved in [(0, 0), (1, 0), (0, 1)]:
                x = given(rng.normal(size=shape), dtype, layout)
                starts = [rng.integers(0, POSITIONS - shape[1] + 1, shape[0]).tolist(), None]
                flags = "-inverse" * inverse + "-interleaved" * interleaved
                name = "x".join(map(str, shape)) + f"-{dtype}-{layout}{flags}"
                out = wanted(shape, dtype, layout, np.ones(shape) if shape[3] == 30 else None)
                yield case(name, x, out, starts[shape[1] % 2], inverse, interleaved)
        x = given(rng.normal(size=(2, 5, 2, 34)), dtype, layout)
        place = wanted(x.shape, dtype, layout, x.values, accumulate=False)
        place.storage = x.storage
        yield case(f"in-place-{dtype}-{layout}", x, place, [3, 0], 0, 0)
