"""reduce: kernels against the twin, and the twin against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import check_gradient, table, verify

from gristmill.backend import _C
from gristmill.lab.cases.reduce import CHUNK, OPS, cases
from gristmill.ops.reduce import reference_backward, reference_forward


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


@pytest.mark.parametrize("zeros", [(0.0, -0.0), (-0.0, 0.0), (-0.0, -0.0)])
@pytest.mark.parametrize("places", [(16, 32), (0, 1), (5, 21)])
def test_the_sign_of_a_largest_zero_depends_on_nothing(
    zeros: tuple[float, float], places: tuple[int, int]
) -> None:
    x = np.full((3, 48), -1, np.float32)
    x[:, places] = zeros
    turned = _C.from_numpy(np.ascontiguousarray(x.T)).view((3, 48), (1, 3), 0)
    for name in _C.tables():
        with table(name):
            for given in (_C.from_numpy(x), turned):
                out = _C.empty((3,))
                _C.reduce(out, given, "max")
                assert out.numpy().tobytes() == np.zeros(3, np.float32).tobytes()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("where", [0, 1, 16, 40, CHUNK + 3])
def test_nan_is_never_dropped(op: str, where: int) -> None:
    x = np.arange(CHUNK + 5, dtype=np.float32)
    x[where] = np.nan
    for name in _C.tables():
        with table(name):
            out = _C.empty((1,))
            _C.reduce(out, _C.from_numpy(x[None]), op)
            columns = np.ones((CHUNK + 5, 70), np.float32)
            columns[:, 68] = x
            across = _C.empty((70,))
            _C.reduce(across, _C.from_numpy(columns).view((70, CHUNK + 5), (1, 70), 0), op)
        assert np.isnan(out.numpy()[0]), f"{name}: {op} of a row with NaN is {out.numpy()[0]}"
        assert np.isnan(across.numpy()).nonzero()[0].tolist() == [68], f"{name}: {op} of columns"


@pytest.mark.parametrize("op", OPS)
def test_gradient_of_the_twin(op: str) -> None:
    rng = np.random.default_rng(16)
    x, dout = rng.normal(size=(3, 5)), rng.normal(size=3)
    gradient = reference_backward(dout, x, op)
    check_gradient(lambda y: reference_forward(y, op), [gradient], [x], dout)
