"""elementwise: every op, broadcast and strided, conversions, special values, finite differences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cases import SIZES, TINY, Case, Floats, Operand, U, given, wanted
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from oracle import check_gradient, compare, table, verify

from gristmill.backend import _C
from gristmill.ops.elementwise import reference_backward, reference_forward

UNARY = ("copy", "neg", "exp", "log", "sqrt", "tanh", "sigmoid", "relu", "square")
BINARY = ("add", "sub", "mul", "div", "maximum")
POSITIVE = ("log", "sqrt")
# roundings of a result: one where IEEE rounds correctly, 3 ulp = 6 U for our exp, log and tanh
ROUNDINGS = {
    "exp": 6,
    "log": 6,
    "tanh": 6,
    "sigmoid": 9,
    "copy": 0,
    "neg": 0,
    "relu": 0,
    "maximum": 0,
}


def case(name: str, out: Operand, op: str, a: Operand, b: Operand | float | None = None) -> Case:
    y = b if b is None else b.values if isinstance(b, Operand) else np.asarray(np.float32(b))
    with np.errstate(all="ignore"):
        value = reference_forward(op, a.values, None if y is None else y.astype(np.float64))
    return Case(
        "elementwise",
        name,
        {
            "out": _padded(out),
            "a": _padded(a),
            "b": _padded(b) if isinstance(b, Operand) else None,
            **dict(
                zip(("n0", "n1", "n2", "n3"), (1,) * (4 - len(out.shape)) + out.shape, strict=True)
            ),
            "op": op,
            "alpha": float(b) if isinstance(b, float) else 0.0,
        },
        {"out": (value.reshape(_padded(out).shape), _bound(op, value).reshape(_padded(out).shape))},
    )


def _bound(op: str, value: Floats) -> Floats:
    size = np.where(np.isfinite(value), np.abs(value), 0)
    return ROUNDINGS.get(op, 1) * U * size + (TINY if op == "exp" else 0)


def _padded(a: Operand) -> Operand:
    """With ones in front, up to the contract's four dimensions."""
    extra = 4 - len(a.shape)
    shape, strides = (1,) * extra + a.shape, (0,) * extra + a.strides
    return Operand(a.storage, shape, strides, a.offset, a.dtype, a.output, a.accumulate)


def operand(rng: np.random.Generator, op: str, shape: tuple[int, ...], *where: str) -> Operand:
    x = rng.normal(0, 3, shape)
    return given(np.abs(x) + 1e-3 if op in POSITIVE else x, *where)


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(13)
    for op in UNARY + BINARY:
        for dtype, layout in [
            ("float32", "plain"),
            ("bfloat16", "spread"),
            ("float32", "transposed"),
        ]:
            for shape in [(n,) for n in SIZES] if layout == "plain" else [(3, 17), (2, 3, 5, 33)]:
                a = operand(rng, op, shape, dtype, layout)
                b = operand(rng, op, shape, dtype) if op in BINARY else None
                start = np.ones(shape) if shape == (3, 17) else None
                name = f"{op}-{'x'.join(map(str, shape))}-{dtype}-{layout}"
                yield case(name, wanted(shape, dtype, "gaps", start), op, a, b)
    for op in BINARY:
        a = operand(rng, op, (5, 17))
        yield case(f"{op}-number", wanted((5, 17)), op, a, 1.7)
    long = operand(rng, "add", (2, 40000))  # more than one piece of 16384
    yield case("exp-long", wanted((2, 40000)), "exp", long)
    yield from conversions(rng)


def conversions(rng: np.random.Generator) -> Iterator[Case]:
    whole = rng.integers(0, 200, (3, 19))
    for source in ("float32", "bfloat16", "int32", "int64", "uint8"):
        for target in ("float32", "bfloat16", "int32", "int64", "uint8"):
            out = given(np.full((3, 19), 77), target, "gaps")
            out.output = True
            yield case(f"{source}-to-{target}", out, "copy", given(whole, source, "spread"))


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


SPECIAL = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1e-45,
    -1e-40,
    3e38,
    -3e38,
    88.7,
    88.8,
    -87.4,
    -103.9,
    -104.1,
]


@pytest.mark.parametrize("op", UNARY)
def test_special_values(op: str) -> None:
    """Infinities, NaN, denormals and the ends of exp's range come out as in float64."""
    a = given(SPECIAL)
    values = np.asarray(a.values, np.float32)
    with np.errstate(all="ignore"):
        want = reference_forward(op, values.astype(np.float64)).astype(np.float32)
    for name in _C.tables():
        with table(name):
            out = _C.empty((len(SPECIAL),))
            _C.elementwise(out, _C.from_numpy(values), None, op, 0.0)
        got = out.numpy()
        with np.errstate(invalid="ignore"):
            close = np.abs(got.astype(np.float64) - want) <= 9 * U * np.abs(want) + 2.0**-148
        same = close | (got == want) | (np.isnan(got) & np.isnan(want))
        assert same.all(), f"{name}: {op}({values[~same]}) is {got[~same]}, expected {want[~same]}"


@pytest.mark.parametrize("op", BINARY)
def test_nan_is_never_dropped(op: str) -> None:
    a, b = np.array([[np.nan, 1, np.inf, -np.inf, 3e38], [1, np.nan, -np.inf, -np.inf, -3e38]])
    with np.errstate(all="ignore"):
        one = case("nan", wanted((5,)), op, given(a), given(b))
    for name in _C.tables():
        with table(name):
            compare(one, one.run(), name)


@settings(max_examples=60, deadline=None)
@for_all(
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    op=st.sampled_from(BINARY),
    drop=st.integers(0, 15),
    seed=st.integers(0, 999),
)
def test_any_shape_broadcasts(shape: list[int], op: str, drop: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = operand(rng, op, tuple(shape), "float32", "gaps")
    full = operand(rng, op, tuple(shape))
    strides = tuple(0 if drop >> i & 1 else s for i, s in enumerate(full.strides))
    b = Operand(full.storage, full.shape, strides, 0, "float32")
    one = case("any", wanted(tuple(shape), "float32", "spread"), op, a, b)
    compare(one, one.run(), "broadcast")


@pytest.mark.parametrize("op", UNARY + BINARY)
def test_gradient_of_the_twin(op: str) -> None:
    rng = np.random.default_rng(14)
    a, b, dout = rng.normal(size=(3, 4)), rng.normal(size=(1, 4)), rng.normal(size=(3, 4))
    if op in POSITIVE:
        a = np.abs(a) + 0.5
    inputs = [a, np.sign(b) + b] if op in BINARY else [a]
    gradients = reference_backward(dout, op, *inputs)
    check_gradient(lambda *x: reference_forward(op, *x), gradients, inputs, dout)


def test_an_unknown_op_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'sinh' is not one of copy, add, .*tanh"):
        _C.elementwise(_C.empty((1,)), _C.empty((1,)), None, "sinh", 0.0)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("op", UNARY)
def test_an_op_of_one_operand_refuses_a_second(op: str, dtype: str) -> None:
    a, b = _C.empty((9,)), _C.empty((9,), dtype)
    with pytest.raises(ValueError, match=f"{op} takes one operand"):
        _C.elementwise(_C.empty((9,)), a, b, op, 0.0)
