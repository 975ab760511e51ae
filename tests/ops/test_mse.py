"""mse: kernels against the twin, the twin against finite differences, the edges, and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import check_gradient, table, verify

import gristmill as gm
from gristmill.backend import _C
from gristmill.lab.cases.mse import cases
from gristmill.nn.functional import mse_loss
from gristmill.ops.mse import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    x, target = np.random.default_rng(2).normal(0, 3, (2, 4, 5))
    dloss = np.array([0.7])
    gradients = list(reference_backward(dloss, x, target))
    check_gradient(reference_forward, gradients, [x, target], dloss)


@pytest.mark.parametrize("name", _C.tables())
def test_edges(name: str) -> None:
    """NaN is never dropped, infinities that cancel are NaN, no element at all has no mean."""
    with table(name):
        for where in (0, 16, 40, 16389):
            x = np.zeros(16390, np.float32)
            x[where] = np.nan
            assert np.isnan(mse_loss(gm.tensor(x), gm.tensor(0 * x)).item())
        infinite = gm.tensor(np.array([np.inf, 1], np.float32))
        assert np.isnan(mse_loss(infinite, infinite).item())
        assert mse_loss(infinite, gm.tensor(np.ones(2, np.float32))).item() == np.inf
        x = gm.tensor(np.zeros((0, 3), np.float32), requires_grad=True)
        loss = mse_loss(x, gm.tensor(np.zeros((0, 3), np.float32)))
        loss.backward()
        assert np.isnan(loss.item())
        assert x.grad.shape == (0, 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_value_and_gradients_are_torchs(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    a, b = np.random.default_rng(3).normal(0, 3, (2, 6, 50)).astype(np.float32)
    ours = [gm.tensor(v, dtype, requires_grad=True) for v in (a, b)]
    theirs = [torch.tensor(v).to(getattr(torch, dtype)).requires_grad_() for v in (a, b)]
    loss, other = gm.nn.MSELoss()(*ours), torch.nn.functional.mse_loss(*theirs)
    loss.backward()
    other.backward()
    assert str(other.dtype) == f"torch.{loss.dtype}"
    # torch rounds the difference to bfloat16 before it squares it
    rtol = 1e-5 if dtype == "float32" else 3 * 2.0**-8
    np.testing.assert_allclose(loss.item(), other.item(), rtol=rtol)
    for mine, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.grad.float().numpy(), their.grad.float().numpy(), rtol=rtol)


def test_a_tensor_and_itself_and_strides() -> None:
    x = gm.tensor(np.arange(6, dtype=np.float32).reshape(2, 3), requires_grad=True)
    loss = mse_loss(x.T, gm.tensor(np.zeros((3, 2), np.float32))) + mse_loss(x, x)
    loss.backward()
    assert loss.item() == pytest.approx(55 / 6)
    np.testing.assert_allclose(x.grad.numpy(), x.detach().numpy() / 3, rtol=1e-6)


def test_what_does_not_fit_is_an_error() -> None:
    x = gm.tensor(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"target has shape \(3,\), expected \(2, 3\)"):
        mse_loss(x, gm.tensor(np.zeros(3, np.float32)))
    with pytest.raises(TypeError, match="float32 and bfloat16 differ"):
        mse_loss(x, x.bfloat16())
