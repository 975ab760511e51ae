"""matmul: kernels against the twin for every tail, stride, dtype; the same bits in any batch."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from oracle import check_gradient, compare, same_bytes, table, verify

from gristmill.backend import _C
from gristmill.lab.case import round_bf16
from gristmill.lab.cases.matmul import KINDS, LAYOUTS, build, cases
from gristmill.ops.matmul import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


@settings(max_examples=60, deadline=None)
@for_all(
    sizes=st.tuples(st.integers(1, 3), *[st.integers(1, 70)] * 3),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    add=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_shape(
    sizes: tuple[int, int, int, int], layouts: tuple[str, str], add: bool, seed: int
) -> None:
    one = build(np.random.default_rng(seed), sizes, KINDS[0], layouts, add)
    for name in (_C.tables()[0], "scalar"):
        with table(name, threads=2):
            compare(one, one.run(), name)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(28)
    a, b = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 4, 5))
    dout = rng.normal(size=(2, 3, 5))
    check_gradient(reference_forward, reference_backward(dout, a, b), [a, b], dout)


@pytest.mark.parametrize("name", _C.tables())
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_row_has_the_same_bits_alone_and_among_64(
    name: str, stored: str, compute: str, transposed: bool
) -> None:
    """Also among 2, 13 and 33: thin products may take another path, not other bits."""
    rng = np.random.default_rng(29)
    a = rng.normal(size=(1, 64, 400)).astype(np.float32)
    b = rng.normal(size=(1, 400, 70)).astype(np.float32)
    if transposed:
        b = np.ascontiguousarray(b.transpose(0, 2, 1)).transpose(0, 2, 1)
    short = stored == "bfloat16"
    if short:
        a, b = round_bf16(a), round_bf16(b)

    def run(rows: slice) -> np.ndarray:
        part = np.ascontiguousarray(a[:, rows])
        out = _C.empty((1, part.shape[1], 70))
        _C.matmul(out, _C.from_numpy(part, short), _C.from_numpy(b, short), compute)
        return out.numpy()[0].copy()

    with table(name):
        together = run(slice(0, 64))
        for rows in [(0, 1), (31, 32), (63, 64), (10, 12), (20, 33), (0, 33)]:
            part = run(slice(*rows))
            same_bytes(f"rows {rows}", {"out": together[slice(*rows)]}, {"out": part})


@pytest.mark.parametrize("name", _C.tables())
def test_no_columns_are_no_work(name: str) -> None:
    """Also where b's columns would lie side by side."""
    with table(name):
        for rows in (1, 3, 5, 200):
            out = _C.empty((1, rows, 0))
            _C.matmul(out, _C.empty((1, rows, 3)), _C.empty((1, 3, 0)), "float32")
            assert out.shape == (1, rows, 0)


@pytest.mark.parametrize("name", _C.tables())
def test_k_zero_gives_zero_or_keeps_what_is_added_to(name: str) -> None:
    a, b = _C.empty((1, 3, 0)), _C.empty((1, 0, 20))
    out = _C.from_numpy(np.full((1, 3, 20), 7, np.float32))
    with table(name):
        _C.matmul(out.accumulating(), a, b, "float32")
        assert (out.numpy() == 7).all()
        _C.matmul(out, a, b, "float32")
        assert (out.numpy() == 0).all()


def test_infinities_and_nan_spread_to_their_own_row_and_column_only() -> None:
    a, b = np.ones((1, 14, 40), np.float32), np.ones((1, 40, 35), np.float32)
    a[0, 3, 5], a[0, 7, 0], b[0, 2, 33] = np.nan, np.inf, np.nan
    for name in _C.tables():
        out = _C.empty((1, 14, 35))
        with table(name):
            _C.matmul(out, _C.from_numpy(a), _C.from_numpy(b), "float32")
        np.testing.assert_array_equal(out.numpy(), a @ b, err_msg=name)


def test_shapes_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"matmul: b has shape \(1, 5, 6\), expected \(1, 4, any\)"
    ):
        _C.matmul(_C.empty((1, 3, 6)), _C.empty((1, 3, 4)), _C.empty((1, 5, 6)), "float32")


def test_the_bound_is_sharp_enough_to_see_a_missing_term() -> None:
    rng = np.random.default_rng(30)
    one = build(rng, (1, 3, 17, 385), KINDS[0], ("plain", "plain"), add=False)
    got = one.run()
    a, b = (one.arguments[n].values for n in "ab")
    got["out"] = got["out"].copy()
    one.outputs()["out"].read(got["out"])[...] -= np.float32(a[:, :, 384:] @ b[:, 384:])
    with pytest.raises(AssertionError, match="times the bound"):
        compare(one, got, "without the last k")
