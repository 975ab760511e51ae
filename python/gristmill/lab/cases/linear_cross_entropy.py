"""Cases of linear_cross_entropy: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import UB, Case, Floats, U, gamma, given, round_bf16, wanted, widen_bf16
from gristmill.lab.cases.cross_entropy import PIECE, lse_bound, smoothing_bound
from gristmill.ops.linear_cross_entropy import reference_backward, reference_forward

CHUNK = 1032  # rows of a small vocabulary alive at once

# rows, cols, V: around the chunk, the piece of the logits and the panels of matmul
SHAPES = [
    (1, 1, 1),
    (3, 17, 33),
    (8, 31, 61),
    (CHUNK - 1, 5, 40),
    (CHUNK, 16, 17),
    (CHUNK + 1, 7, 50),
    (5, 3, PIECE + 1),
    (2, 9, 3 * PIECE - 1),
    (360, 5, 3 * PIECE + 2),  # two chunks, each of four pieces
]

KINDS = [  # dtype of x and dx, of weight, how the products are computed
    ("float32", "float32", "float32"),
    ("float32", "float32", "bfloat16"),
    ("bfloat16", "bfloat16", "bfloat16"),
]


def rounded(x: Floats, compute: str) -> Floats:
    """An operand of a product as the kernel computes with it."""
    return widen_bf16(round_bf16(x)).astype(np.float64) if compute == "bfloat16" else x


def bounds(
    x: Floats, w: Floats, targets: Floats, scale: float, compute: str, smoothing: float = 0.0
) -> tuple[Floats, ...]:
    """Errors of losses, dx and dweight.

    A logit is off by delta, a chain over cols; the loss by twice the row's largest delta and what
    cross entropy adds; p by as much relatively. dlogits go through the last two products, rounded
    to bfloat16 where those are computed in it. bfloat16 pairs add twice a step: 2 cols, 2 V.
    """
    logits, size = x @ w.T, np.abs(x) @ np.abs(w).T
    delta = (gamma(2 * x.shape[1] + 2) * size).max(axis=1)
    error = 2 * delta + lse_bound(logits) + smoothing_bound(logits, targets, smoothing)
    losses = reference_forward(x, w, targets, smoothing)
    top = logits.max(axis=1, keepdims=True)
    p = np.exp(logits - top)
    p /= p.sum(axis=1, keepdims=True)
    exponent = np.abs(logits - top) + np.log(w.shape[0]) + np.abs(top)
    one = np.eye(w.shape[0])[np.maximum(targets, 0)]
    counted = (targets >= 0)[:, None]
    soft = (1 - smoothing) * one + smoothing / w.shape[0]
    dlogits = scale * np.abs(p - soft) * counted
    off = scale * p * counted * (2 * error[:, None] + U * (8 + 2 * exponent)) + 3 * U * dlogits
    off = off + 4 * U * scale * soft * counted * (smoothing > 0)
    if compute == "bfloat16":
        off = off + UB * (dlogits + off)
    dx = off @ np.abs(w) + gamma(2 * w.shape[0] + 2) * dlogits @ np.abs(w)
    dw = off.T @ np.abs(x) + gamma(2 * len(x) + 4) * dlogits.T @ np.abs(x)
    return (error + U * np.abs(losses)) * counted[:, 0], dx, dw


def loss_case(
    shape: tuple[int, int, int],
    kind: tuple[str, str, str],
    layout: str,
    grad: bool,
    add: bool,
    smoothing: float = 0.0,
) -> Case:
    rows, cols, v = shape
    rng = np.random.default_rng(rows * 1000 + cols)
    stored, weights, compute = kind
    x, w = (
        given(rng.normal(size=(rows, cols)), stored, layout),
        given(rng.normal(size=(v, cols)), weights),
    )
    targets = np.where(rng.random(rows) < 0.1, -100, rng.integers(0, v, rows))
    scale = float(np.float32(1 / rows))
    a, b = rounded(x.values, compute), rounded(w.values, compute)
    smoothing = float(np.float32(smoothing))
    losses = reference_forward(a, b, targets, smoothing)
    dx, dweight = reference_backward(scale, a, b, targets, smoothing)
    bound = bounds(a, b, targets, scale, compute, smoothing)
    ones = (np.ones(x.shape), np.ones(w.shape)) if add else (None, None)
    expected = {"losses": (losses, bound[0])}
    if grad:
        extra = gamma(2 * v) if add else 0, gamma(2 * rows) if add else 0  # chains start at 1
        expected["dx"] = dx, bound[1] + extra[0]
        expected["dweight"] = dweight, bound[2] + extra[1]
    return Case(
        "linear_cross_entropy",
        f"{rows}x{cols}-{v}-{'-'.join(kind)}-{layout}"
        + "-loss" * (not grad)
        + "-added" * add
        + "-smoothed" * (smoothing > 0),
        {
            "losses": wanted((rows,)),
            "dx": wanted(x.shape, stored, layout, ones[0]) if grad else None,
            "dweight": wanted(w.shape, start=ones[1]) if grad else None,
            "x": x,
            "weight": w,
            "targets": given(targets, "int32"),
            "rows": rows,
            "cols": cols,
            "V": v,
            "scale": scale,
            "smoothing": smoothing,
            "compute": compute,
        },
        expected,
    )


def cases() -> Iterator[Case]:
    for kind in KINDS:
        for shape in SHAPES:
            layout = "gaps" if shape[0] % 2 else "plain"
            yield loss_case(shape, kind, layout, grad=True, add=shape[0] in (3, 5, CHUNK + 1))
        yield loss_case((8, 31, 61), kind, "plain", grad=False, add=False)
        yield loss_case((8, 31, 61), kind, "plain", grad=True, add=False, smoothing=0.1)
        yield loss_case((3, 5, PIECE + 9), kind, "plain", grad=False, add=False, smoothing=0.1)
