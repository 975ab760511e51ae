"""relu: kernels against the twin, the twin against finite differences, NaN as PyTorch has it."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import check_gradient, table, verify

import gristmill as gm
from gristmill.backend import _C
from gristmill.lab.cases.relu import EDGES, cases
from gristmill.ops.relu import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    x, dout = np.random.default_rng(2).normal(0, 3, (2, 4, 5))
    check_gradient(reference_forward, [reference_backward(dout, reference_forward(x))], [x], dout)


@pytest.mark.parametrize("name", _C.tables())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nan_and_its_gradient_are_pytorchs(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    values = np.array([np.nan, *EDGES, 2.0, np.nan], np.float32)
    theirs = torch.tensor(values).to(getattr(torch, dtype)).requires_grad_()
    y = theirs.relu()
    y.backward(torch.full_like(y, 0.5))
    with table(name):
        ours = gm.tensor(values, dtype, requires_grad=True)
        z = ours.relu()
        z.backward(gm.tensor(np.full_like(values, 0.5), dtype))
        np.testing.assert_array_equal(z.float().numpy(), y.detach().float().numpy())
        np.testing.assert_array_equal(ours.grad.float().numpy(), theirs.grad.float().numpy())
