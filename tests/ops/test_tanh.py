"""tanh: kernels against the twin, the twin against finite differences, NaN, and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import check_gradient, table, verify

import gristmill as gm
from gristmill.backend import _C
from gristmill.lab.cases.tanh import EDGES, cases
from gristmill.ops.tanh import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    x, dout = np.random.default_rng(2).normal(0, 3, (2, 4, 5))
    check_gradient(reference_forward, [reference_backward(dout, reference_forward(x))], [x], dout)


@pytest.mark.parametrize("name", _C.tables())
def test_nan_stays_nan_in_both_passes(name: str) -> None:
    with table(name):
        x = gm.tensor(np.array([1, np.nan, 2], np.float32), requires_grad=True)
        y = x.tanh()
        y.sum().backward()
        for got in (y, x.grad):
            assert np.isnan(got.numpy()).tolist() == [False, True, False]


@pytest.mark.parametrize("name", _C.tables())
def test_it_is_odd(name: str) -> None:
    """Bit for bit, zero too."""
    x = np.append(np.linspace(0, 12, 777), [1e-45, np.inf]).astype(np.float32)
    with table(name):
        above, below = (gm.tensor(v).tanh().numpy() for v in (x, -x))
    assert (-above).tobytes() == below.tobytes()


def test_values_and_gradient_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    x = np.array([*EDGES, *np.linspace(-9, 9, 77)], np.float32)
    ours, theirs = gm.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    mine, other = ours.tanh(), theirs.tanh()
    mine.square().sum().backward()
    other.square().sum().backward()
    # torch keeps 1 - out, which cancels, and may itself be off by 2 ulp
    np.testing.assert_allclose(mine.numpy(), other.detach().numpy(), rtol=1e-6, atol=1e-37)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-5, atol=1e-6)
