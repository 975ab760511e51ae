"""Cases of softmax: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, TINY, Case, Floats, U, gamma, given, terms, wanted
from gristmill.ops.softmax import reference_backward, reference_forward

LAYOUTS = [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "gaps")]

SHAPES = [(1, n) for n in SIZES] + [(3, 17), (17, 33), (5, 64), (2, 257), (65, 100), (1, 2049)]


def chain(cols: int) -> int:
    """Roundings of a horizontal sum: one per step of the lanes, six to join four chains."""
    return -(-cols // 16) + 6


def forward_bound(x: Floats, dtype: str) -> Floats:
    """exp: 6 U and the rounding of its argument x - max; the sum of such, a quotient, a product.
    What float32 flushes or rounds absolutely is TINY. For bfloat16 exp is off by 2^-13 in numerator
    and sum, and its argument rounded once more."""
    y = reference_forward(x)
    top = x.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        away = np.where(np.isfinite(x), np.abs(x - np.where(np.isfinite(top), top, 0)), 0)
    spread = (y * away).sum(axis=1, keepdims=True)
    bound: Floats = (
        y * (gamma(chain(x.shape[1])) + U * (15 + away + spread) + 2 * terms(dtype)) + 2 * TINY
    )
    return bound


def backward_bound(dout: Floats, out: Floats) -> Floats:
    """The sum of products, a difference, a product."""
    products = np.abs(out * dout)
    dot = products.sum(axis=1, keepdims=True)
    bound: Floats = gamma(chain(out.shape[1]) + 3) * (np.abs(out) * dot + products) + TINY
    return bound


def pair(name: str, x: Floats, dtype: str, layout: str, add: bool) -> Iterator[Case]:
    rng = np.random.default_rng(x.size)
    sizes = {"rows": x.shape[0], "cols": x.shape[1]}
    start = rng.normal(size=x.shape) if add else None
    x_in, d_in = given(x, dtype, layout), given(rng.normal(size=x.shape), dtype)
    y_in = given(reference_forward(x), dtype, layout)
    yield Case(
        "softmax_forward",
        name,
        {"out": wanted(x.shape, dtype, layout, start), "x": x_in, **sizes},
        {"out": (reference_forward(x_in.values), forward_bound(x_in.values, dtype))},
    )
    yield Case(
        "softmax_backward",
        name,
        {"dx": wanted(x.shape, dtype, layout, start), "dout": d_in, "out": y_in, **sizes},
        {
            "dx": (
                reference_backward(d_in.values, y_in.values),
                backward_bound(d_in.values, y_in.values),
            )
        },
    )


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(31)
    for dtype, layout in LAYOUTS:
        for rows, cols in SHAPES:
            name = f"{rows}x{cols}-{dtype}-{layout}"
            yield from pair(name, rng.normal(0, 4, (rows, cols)), dtype, layout, rows == 3)
        masked = np.where(np.arange(40) > np.arange(0, 40, 8)[:, None], -np.inf, 1.0)
        masked[0] = -np.inf
        yield from pair(f"masked-{dtype}-{layout}", masked, dtype, layout, False)
