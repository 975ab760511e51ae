"""dropout: kernels against the twin, the share that is kept, the same mask backwards."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import Case
from oracle import check_gradient, verify

from gristmill.backend import _C
from gristmill.lab.cases.dropout import cases
from gristmill.ops.dropout import dropped, reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(18)
    x, dout = rng.normal(size=(2, 20))
    gradient = reference_backward(dout, 1, 2, 0.3)
    check_gradient(lambda x: reference_forward(x, 1, 2, 0.3), [gradient], [x], dout)


def test_the_share_that_is_kept() -> None:
    """Within five standard errors of 1 - p, and the expectation is unchanged."""
    n, p = 2**18, 0.3
    out = _C.empty((n,))
    _C.dropout(out, _C.from_numpy(np.ones(n, np.float32)), 3, 4, p)
    y = out.numpy()
    assert abs((y > 0).mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / n)
    assert set(np.unique(y)) == {np.float32(0), np.float32(65536) / np.float32(65536 - dropped(p))}


def test_the_share_is_rounded_to_steps_and_never_reaches_one() -> None:
    assert [dropped(p) for p in (0.0, 0.1, 0.5, 1 - 2**-20)] == [0, 6554, 32768, 65535]


def test_what_is_dropped_is_zero_whatever_it_was() -> None:
    x = np.full(1000, np.nan, np.float32)
    out = _C.empty((1000,))
    _C.dropout(out, _C.from_numpy(x), 3, 4, 0.5)
    kept = reference_forward(np.ones(1000), 3, 4, 0.5) > 0
    np.testing.assert_array_equal(np.isnan(out.numpy()), kept)


@pytest.mark.parametrize("p", [-0.1, 1.0, math.nan])
def test_a_share_outside_its_range_is_an_error(p: float) -> None:
    with pytest.raises(ValueError, match="allowed is 0 <= p < 1"):
        _C.dropout(_C.empty((3,)), _C.empty((3,)), 0, 0, p)
