"""elementwise: every op, broadcast and strided, conversions, special values, finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, Operand, U, given, wanted
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from oracle import check_gradient, compare, table, verify

from gristmill.backend import _C
from gristmill.lab.cases.elementwise import BINARY, POSITIVE, UNARY, case, cases, operand
from gristmill.ops.elementwise import reference_backward, reference_forward


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
    with pytest.raises(ValueError, match=r"'sinh' is not one of copy, add, .*square"):
        _C.elementwise(_C.empty((1,)), _C.empty((1,)), None, "sinh", 0.0)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("op", UNARY)
def test_an_op_of_one_operand_refuses_a_second(op: str, dtype: str) -> None:
    a, b = _C.empty((9,)), _C.empty((9,), dtype)
    with pytest.raises(ValueError, match=f"{op} takes one operand"):
        _C.elementwise(_C.empty((9,)), a, b, op, 0.0)
