"""Cases of rmsnorm: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, Case, Floats, U, gamma, given, wanted
from gristmill.ops.rmsnorm import reference_backward, reference_forward

EPS = 1e-6

LAYOUTS = [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "gaps")]

# around the 16 rows of a chunk of the forward pass and kRowChunk = 64 of dweight
SHAPES = [(1, n) for n in SIZES] + [(3, 17), (17, 40), (63, 5), (64, 33), (65, 16), (129, 9)]


def chain(cols: int) -> int:
    """Roundings of a horizontal sum: one per step of the lanes, four of the tree."""
    return -(-cols // 16) + 4


def forward_case(name: str, dtype: str, layout: str, x: Floats, weight: Floats, add: bool) -> Case:
    shape = rows, cols = x.shape
    given_x, w = given(x, dtype, layout), given(weight)
    out, rstd = reference_forward(given_x.values, w.values, float(np.float32(EPS)))
    relative = gamma(chain(cols) + 2) / 2 + 2 * U  # of rstd: half of the sum's, root, quotient
    return Case(
        "rmsnorm_forward",
        name,
        {
            "out": wanted(shape, dtype, layout, np.ones(shape) if add else None),
            "rstd": wanted((rows,)),
            "x": given_x,
            "weight": w,
            "rows": rows,
            "cols": cols,
            "eps": EPS,
        },
        {"out": (out, (relative + 2 * U) * np.abs(out)), "rstd": (rstd, relative * rstd)},
    )


def backward_case(name: str, dtype: str, layout: str, x: Floats, weight: Floats, add: bool) -> Case:
    shape = rows, cols = x.shape
    rng = np.random.default_rng(rows * 1000 + cols)
    x_in, w, dout = given(x, dtype, layout), given(weight), given(rng.normal(size=shape), dtype)
    rstd = given(reference_forward(x_in.values, w.values, EPS)[1])
    r = rstd.values[:, None]
    dx, dweight = reference_backward(dout.values, x_in.values, w.values, rstd.values)
    g, size = dout.values * w.values, np.abs(x_in.values)
    mean = np.abs(g * x_in.values).mean(axis=1, keepdims=True)
    bound_dx = 3 * U * r * np.abs(g) + gamma(chain(cols) + 8) * r**3 * size * mean
    terms = np.abs(dout.values * x_in.values * r).sum(axis=0)
    return Case(
        "rmsnorm_backward",
        name,
        {
            "dx": wanted(shape, dtype, layout, np.ones(shape) if add else None),
            "dweight": wanted((cols,), start=np.ones(cols) if add else None),
            "dout": dout,
            "x": x_in,
            "weight": w,
            "rstd": rstd,
            "rows": rows,
            "cols": cols,
        },
        {"dx": (dx, bound_dx), "dweight": (dweight, gamma(rows + 4) * terms)},
    )


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(5)
    for dtype, layout in LAYOUTS:
        for rows, cols in SHAPES:
            x, weight = rng.normal(0, 2, (rows, cols)), rng.normal(1, 0.3, cols)
            name = f"{rows}x{cols}-{dtype}-{layout}"
            yield forward_case(name, dtype, layout, x, weight, rows == 3)
            yield backward_case(name, dtype, layout, x, weight, rows == 3)
