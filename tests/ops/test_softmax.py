"""softmax: kernels against the twin, the twin against finite differences, torch and the edges."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import check_gradient, same_bytes, table, verify

import gristmill as gm
from gristmill.backend import _C
from gristmill.lab.cases.softmax import cases, pair
from gristmill.ops.softmax import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    x, dout = np.random.default_rng(32).normal(0, 2, (2, 4, 5))
    check_gradient(reference_forward, [reference_backward(dout, reference_forward(x))], [x], dout)


@pytest.mark.parametrize("name", _C.tables())
def test_a_row_has_the_same_bits_alone_and_among_64(name: str) -> None:
    x = np.random.default_rng(33).normal(0, 4, (64, 77))
    with table(name):
        together = next(pair("64", x, "float32", "plain", False)).run()["out"].reshape(64, 77)
        for i in (0, 5, 63):
            alone = next(pair("1", x[i : i + 1], "float32", "plain", False)).run()["out"]
            same_bytes(f"row {i}", {"out": together[i]}, {"out": alone})


@pytest.mark.parametrize("name", _C.tables())
def test_edges(name: str) -> None:
    """Nothing overflows, a fully masked row is 0, NaN is not hidden."""
    nothing, top = -np.inf, 3e38
    x = [[top, top, -top], [nothing] * 3, [nothing, 0, nothing], [0, np.nan, 0]]
    with table(name):
        got = gm.tensor(x).softmax().numpy()
    np.testing.assert_array_equal(got[:3], [[0.5, 0.5, 0], [0, 0, 0], [0, 1, 0]])
    assert np.isnan(got[3]).all()


def test_another_dimension_than_the_last_is_an_error() -> None:
    x = gm.tensor(np.zeros((2, 3), np.float32))
    assert gm.nn.functional.softmax(x, 1).shape == (2, 3)
    with pytest.raises(ValueError, match="dim 0 given"):
        gm.nn.functional.softmax(x, 0)


def test_values_and_gradient_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(34).normal(0, 3, (2, 3, 50)).astype(np.float32)
    ours, theirs = gm.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    (ours.softmax(-1).square()).sum().backward()
    theirs.softmax(-1).square().sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-4, atol=1e-7)
