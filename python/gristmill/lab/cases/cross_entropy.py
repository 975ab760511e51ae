"""Cases of cross_entropy: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, TINY, Case, Floats, Operand, U, gamma, given, wanted
from gristmill.ops.cross_entropy import reference_backward, reference_forward

LAYOUTS = [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "gaps")]

PIECE = 4096  # kLossColumns
SHAPES = [(3, n) for n in SIZES] + [(1, 257), (9, 1000), (2, PIECE + 1), (1, 3 * PIECE - 1)]


def lse_bound(x: Floats) -> Floats:
    """exp: 6 U and the rounding of its argument x - max; the sum: a lane's steps and the tree; the
    logarithm: 6 U; max + log: one rounding. Pieces are joined by an exp, its argument and two more
    roundings each; the arguments add up to no more than top - min."""
    top = x.max(axis=1, keepdims=True)
    _, lse = reference_forward(x, np.zeros(len(x), int))
    spread = (np.exp(x - lse[:, None]) * (top - x)).sum(axis=1)
    chain = gamma(-(-x.shape[1] // 16) + 4)
    pieces = -(-x.shape[1] // PIECE) - 1
    if pieces:
        chain += U * (8 * pieces + x.max(axis=1) - x.min(axis=1))
    return chain + U * (6 + spread + 6 * np.abs(lse - top[:, 0]) + np.abs(lse))


def smoothing_bound(x: Floats, targets: Floats, smoothing: float) -> Floats:
    """The mean: a lane's steps, the tree, a division; 1 - s, two products, two sums."""
    if not smoothing:
        return np.zeros(len(x))
    mean = gamma(-(-x.shape[1] // 16) + 5) * np.abs(x).mean(axis=1)
    own = np.abs(np.take_along_axis(x, np.maximum(targets, 0)[:, None], axis=1)[:, 0])
    smoothed = (1 - smoothing) * own + smoothing * np.abs(x).mean(axis=1)
    return smoothing * mean + U * 4 * smoothed


def draw(rng: np.random.Generator, shape: tuple[int, int], *where: str) -> tuple[Operand, Operand]:
    """Logits and targets, about one in four ignored."""
    rows, v = shape
    targets = np.where(rng.random(rows) < 0.25, -100, rng.integers(0, v, rows))
    return given(rng.normal(0, 4, shape), *where), given(targets, "int32", "spread")


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(22)
    for dtype, layout in LAYOUTS:
        for shape in SHAPES:
            logits, targets = draw(rng, shape, dtype, layout)
            name = f"{shape[0]}x{shape[1]}-{dtype}-{layout}"
            yield forward_case(name, logits, targets)
            yield backward_case(rng, name, logits, targets, wanted(shape, dtype, layout))
            added = wanted(shape, dtype, layout, rng.normal(size=shape))
            yield backward_case(rng, f"{name}-added", logits, targets, added)
            place = wanted(shape, dtype, layout, logits.values, accumulate=False)
            if shape[1] in (1, 17, 1000):
                yield forward_case(f"{name}-smoothed", logits, targets, 0.1)
                yield backward_case(rng, f"{name}-smoothed", logits, targets, added, 0.1)
            logits.storage = place.storage
            yield backward_case(rng, f"{name}-in-place", logits, targets, place)


def forward_case(name: str, logits: Operand, targets: Operand, smoothing: float = 0.0) -> Case:
    rows, v = logits.shape
    smoothing = float(np.float32(smoothing))
    losses, lse = reference_forward(logits.values, targets.read(), smoothing)
    bound = lse_bound(logits.values)
    counted = targets.read() >= 0
    more = smoothing_bound(logits.values, targets.read(), smoothing)
    return Case(
        "cross_entropy_forward",
        name,
        {
            "losses": wanted((rows,), layout="spread"),
            "lse": wanted((rows,)),
            "logits": logits,
            "targets": targets,
            "rows": rows,
            "V": v,
            "smoothing": smoothing,
        },
        {"losses": (losses, (bound + more + U * np.abs(losses)) * counted), "lse": (lse, bound)},
    )


def backward_case(
    rng: np.random.Generator,
    name: str,
    logits: Operand,
    targets: Operand,
    out: Operand,
    smoothing: float = 0.0,
) -> Case:
    rows, v = logits.shape
    smoothing = float(np.float32(smoothing))
    x, t = logits.values, targets.read()
    lse = given(reference_forward(x, t)[1])
    dlosses = given(rng.normal(size=rows))
    dlogits = reference_backward(dlosses.values, x, t, smoothing)
    # p = exp(x - lse): 6 U, the argument's rounding and that of the given lse; minus one; a product
    arg = np.abs(x - lse.values[:, None])
    p = np.exp(x - lse.values[:, None])
    size = np.abs(dlosses.values)[:, None] * (t >= 0)[:, None]
    bound = U * size * (p * (8 + arg + np.abs(lse.values)[:, None])) + 2 * U * np.abs(dlogits)
    if smoothing:  # s / V, taken from p and both times dloss; (1 - s) dloss taken from that
        bound += U * size * (4 * (p + smoothing / v) + 3 * np.eye(v)[np.maximum(t, 0)])
    return Case(
        "cross_entropy_backward",
        name,
        {
            "dlogits": out,
            "dlosses": dlosses,
            "logits": "=dlogits" if out.storage is logits.storage else logits,
            "lse": lse,
            "targets": targets,
            "rows": rows,
            "V": v,
            "smoothing": smoothing,
        },
        {"dlogits": (dlogits, bound + TINY)},
    )
