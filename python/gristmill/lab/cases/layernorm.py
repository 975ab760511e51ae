"""Cases of layernorm: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, Case, Floats, U, gamma, given, wanted
from gristmill.ops.layernorm import reference_backward, reference_forward

EPS = 1e-5

LAYOUTS = [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "gaps")]

# around the 16 rows of a chunk of the forward pass and kRowChunk = 64 of dweight and dbias;
# of 3 rows results are added, of 17 the mean is far from 0 and nothing optional is given
SHAPES = [(1, n) for n in SIZES] + [(3, 17), (17, 40), (63, 5), (64, 33), (65, 16), (129, 9)]


def chain(cols: int) -> int:
    """Roundings of a horizontal sum: one per step of the lanes, four of the tree."""
    return -(-cols // 16) + 4


def data(rows: int, cols: int, seed: int = 5) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(rows * 1000 + cols + seed)
    x = rng.normal(300 if rows == 17 else 0.5, 2, (rows, cols))
    return x, rng.normal(1, 0.3, cols), rng.normal(0, 0.3, cols)


def forward_case(name: str, dtype: str, layout: str, x: Floats, weight: Floats, shift: Floats,
                 add: bool, bare: bool) -> Case:  # fmt: skip
    shape = rows, cols = x.shape
    x_in, w, b = given(x, dtype, layout), given(weight), given(shift)
    eps = float(np.float32(EPS))
    out, mean, rstd = reference_forward(x_in.values, w.values, 0.0 if bare else b.values, eps)
    r, d = rstd[:, None], x_in.values - mean[:, None]
    off = gamma(chain(cols) + 1) * np.abs(x_in.values).mean(axis=1)  # of the mean: sum, quotient
    # of rstd: half of the variance's, to which the mean's adds its square; then root and quotient
    relative = gamma(chain(cols) + 4) / 2 + 2 * U + (off * rstd) ** 2
    hat = r * (off[:, None] + U * np.abs(d)) + np.abs(d) * r * (relative[:, None] + 2 * U)
    results = {
        "out": (out, np.abs(w.values) * hat + U * np.abs(out)),
        "mean": (mean, off),
        "rstd": (rstd, relative * rstd),
    }
    return Case(
        "layernorm_forward",
        name,
        {
            "out": wanted(shape, dtype, layout, np.ones(shape) if add else None),
            "mean": None if bare else wanted((rows,)),
            "rstd": None if bare else wanted((rows,)),
            "x": x_in,
            "weight": w,
            "bias": None if bare else b,
            "rows": rows,
            "cols": cols,
            "eps": EPS,
        },
        {"out": results["out"]} if bare else results,
    )


def backward_case(name: str, dtype: str, layout: str, x: Floats, weight: Floats, add: bool,
                  bare: bool) -> Case:  # fmt: skip
    shape = rows, cols = x.shape
    rng = np.random.default_rng(rows * 1000 + cols)
    x_in, w, dout = given(x, dtype, layout), given(weight), given(rng.normal(size=shape), dtype)
    mean, rstd = (given(z) for z in reference_forward(x_in.values, w.values, 0.0, EPS)[1:])
    dx, dweight, dbias = reference_backward(
        dout.values, x_in.values, w.values, mean.values, rstd.values
    )
    r, g = rstd.values[:, None], np.abs(dout.values * w.values)
    h = np.abs(x_in.values - mean.values[:, None]) * r
    mean_g, mean_gh = g.mean(axis=1, keepdims=True), (g * h).mean(axis=1, keepdims=True)
    # dx = r (g - m - h c): g in 1 rounding, h in 2, m and c in a sum each; 4 more on the way
    inside = 5 * U * g + gamma(chain(cols) + 6) * mean_g + gamma(chain(cols) + 10) * h * mean_gh
    results = {
        "dx": (dx, r * inside),
        "dweight": (dweight, gamma(rows + 5) * (np.abs(dout.values) * h).sum(axis=0)),
        "dbias": (dbias, gamma(rows + 2) * np.abs(dout.values).sum(axis=0)),
    }
    start = np.ones(cols) if add else None
    return Case(
        "layernorm_backward",
        name,
        {
            "dx": wanted(shape, dtype, layout, np.ones(shape) if add else None),
            "dweight": wanted((cols,), start=start),
            "dbias": None if bare else wanted((cols,), start=start),
            "dout": dout,
            "x": x_in,
            "weight": w,
            "mean": mean,
            "rstd": rstd,
            "rows": rows,
            "cols": cols,
        },
        {n: v for n, v in results.items() if n != "dbias" or not bare},
    )


def cases() -> Iterator[Case]:
    for dtype, layout in LAYOUTS:
        for rows, cols in SHAPES:
            x, weight, shift = data(rows, cols)
            name, add, bare = f"{rows}x{cols}-{dtype}-{layout}", rows == 3, rows == 17
            yield forward_case(name, dtype, layout, x, weight, shift, add, bare)
            yield backward_case(name, dtype, layout, x, weight, add, bare)
