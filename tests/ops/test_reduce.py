"""reduce: kernels against the twin, and the twin against finite differences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cases import SIZES, Case, Floats, gamma, given, wanted
from oracle import check_gradient, table, verify

from gristmill.backend import _C
from gristmill.ops.reduce import reference_backward, reference_forward

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
            for rows, cols in SHAPES if layout == "plain" else SHAPES[::2]:
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


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", _C.tables())
@pytest.mark.parametrize("shape", [(70, 33), (16, 16), (3, CHUNK + 1)])
def test_the_way_through_memory_does_not_show_in_the_bits(
    op: str, name: str, shape: tuple[int, int]
) -> None:
    x = np.random.default_rng(17).normal(size=shape).astype(np.float32)
    along, across = _C.empty((shape[0],)), _C.empty((shape[0],))
    with table(name, 2):
        _C.reduce(along, _C.from_numpy(x), op)
        turned = _C.from_numpy(np.ascontiguousarray(x.T))
        _C.reduce(across, turned.view(shape, (1, shape[0]), 0), op)
    assert along.numpy().tobytes() == across.numpy().tobytes()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("where", [0, 1, 16, 40, CHUNK + 3])
def test_nan_is_never_dropped(op: str, where: int) -> None:
    x = np.arange(CHUNK + 5, dtype=np.float32)
    x[where] = np.nan
    for name in _C.tables():
        with table(name):
            out = _C.empty((1,))
            _C.reduce(out, _C.from_numpy(x[None]), op)
        assert np.isnan(out.numpy()[0]), f"{name}: {op} of a row with NaN is {out.numpy()[0]}"


@pytest.mark.parametrize("op", OPS)
def test_gradient_of_the_twin(op: str) -> None:
    rng = np.random.default_rng(16)
    x, dout = rng.normal(size=(3, 5)), rng.normal(size=3)
    gradient = reference_backward(dout, x, op)
    check_gradient(lambda y: reference_forward(y, op), [gradient], [x], dout)
