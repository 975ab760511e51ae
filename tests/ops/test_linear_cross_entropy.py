"""linear_cross_entropy: kernels against the twin in one pass and over several chunks of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cases import UB, Case, Floats, U, gamma, given, round_bf16, wanted, widen_bf16
from oracle import check_gradient, same_bytes, table, verify
from test_cross_entropy import lse_bound, smoothing_bound

from gristmill.backend import _C
from gristmill.ops.linear_cross_entropy import reference_backward, reference_forward

CHUNK = 512  # kLossRows
# rows, cols, V: around the chunk and the panels of matmul
SHAPES = [
    (1, 1, 1),
    (3, 17, 33),
    (8, 31, 61),
    (CHUNK - 1, 5, 40),
    (CHUNK, 16, 17),
    (2 * CHUNK + 1, 7, 50),
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
            yield loss_case(shape, kind, layout, grad=True, add=shape[0] in (3, 2 * CHUNK + 1))
        yield loss_case((8, 31, 61), kind, "plain", grad=False, add=False)
        yield loss_case((8, 31, 61), kind, "plain", grad=True, add=False, smoothing=0.1)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(25)
    x, w, targets = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), np.array([0, -100, 4, 2])
    gradients = reference_backward(0.25, x, w, targets)
    check_gradient(
        lambda x, w: reference_forward(x, w, targets), gradients, [x, w], np.full(4, 0.25)
    )


@pytest.mark.parametrize("name", _C.tables())
def test_a_row_has_the_same_loss_and_gradient_alone_and_among_64(name: str) -> None:
    rng = np.random.default_rng(26)
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((64, 20), (50, 20)))
    targets = rng.integers(0, 50, 64).astype(np.int32)

    def run(rows: slice) -> dict[str, np.ndarray]:
        part = np.ascontiguousarray(x[rows])
        losses, dx, dw = _C.empty((len(part),)), _C.empty(part.shape), _C.empty(w.shape)
        arrays = (_C.from_numpy(z) for z in (part, w, targets[rows]))
        _C.linear_cross_entropy(losses, dx, dw, *arrays, 0.125, "float32")
        return {"losses": losses.numpy().copy(), "dx": dx.numpy().copy()}

    with table(name):
        together = run(slice(None))
        for i in (0, 11, 63):
            alone = run(slice(i, i + 1))
            same_bytes(f"row {i}", {k: y[i : i + 1] for k, y in together.items()}, alone)


@pytest.mark.parametrize("name", _C.tables())
def test_one_gradient_alone_has_the_same_bits(name: str) -> None:
    """A frozen head wants none of its own. 600 rows are more than one chunk."""
    rng = np.random.default_rng(1)
    x, w = (_C.from_numpy(rng.normal(size=s).astype(np.float32)) for s in ((600, 8), (33, 8)))
    targets = _C.from_numpy(rng.integers(0, 33, 600).astype(np.int32))

    def run(with_x: bool, with_weight: bool) -> dict[str, np.ndarray]:
        outs = {"losses": _C.empty((600,))}
        outs |= {"dx": _C.empty((600, 8))} if with_x else {}
        outs |= {"dweight": _C.empty((33, 8))} if with_weight else {}
        given = outs["losses"], outs.get("dx"), outs.get("dweight")
        _C.linear_cross_entropy(*given, x, w, targets, 0.5, "float32")
        return {k: y.numpy() for k, y in outs.items()}

    with table(name):
        both = run(True, True)
        for alone in (run(True, False), run(False, True)):
            same_bytes("alone", {k: both[k] for k in alone}, alone)


@pytest.mark.parametrize("name", _C.tables())
def test_no_rows_have_no_gradient(name: str) -> None:
    x, w, targets = _C.empty((0, 3)), _C.empty((4, 3)), _C.from_numpy(np.zeros(0, np.int32))
    for add, left in ((False, 0), (True, 7)):
        dweight = _C.from_numpy(np.full((4, 3), 7, np.float32))
        out = dweight.accumulating() if add else dweight
        with table(name):
            _C.linear_cross_entropy(
                _C.empty((0,)), _C.empty((0, 3)), out, x, w, targets, 1.0, "float32"
            )
        assert (dweight.numpy() == left).all()
