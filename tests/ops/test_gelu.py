"""gelu, exact and approximated: kernels against the twin, the twin against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, Floats
from oracle import check_gradient, table, verify

from gristmill.backend import _C
from gristmill.lab.case import widen_bf16
from gristmill.lab.cases.gelu import cases, pair
from gristmill.ops.gelu import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


@pytest.mark.parametrize("approximate", [0, 1])
def test_every_bfloat16(approximate: int) -> None:
    """Every value below 1e20, and so every exponent, denormals and zeros of both signs."""
    x = widen_bf16(np.arange(1 << 16, dtype=np.uint16).reshape(256, 256))
    x = x[np.abs(x) < 1e20].reshape(2, -1)
    for case in pair("every", x, np.ones_like(x), "bfloat16", "plain", approximate):
        verify(case)


@pytest.mark.parametrize("name", _C.tables())
@pytest.mark.parametrize("approximate", [0, 1])
def test_nan_stays_nan_and_infinity_infinity(name: str, approximate: int) -> None:
    x = np.full((1, 17), np.nan)
    x[0, 3] = np.inf
    with table(name):
        for case in pair("nan", x, np.ones_like(x), "float32", "plain", approximate):
            (got,) = case.run().values()
            assert np.isnan(np.delete(got, 3)).all()
            assert got[3] == np.inf or case.entry == "gelu_backward"  # there inf 0, as in PyTorch


@pytest.mark.parametrize("approximate", [False, True])
def test_gradient_of_the_twin(approximate: bool) -> None:
    rng = np.random.default_rng(2)
    x, dout = rng.normal(0, 3, (2, 4, 5))

    def forward(x: Floats) -> Floats:
        return reference_forward(x, approximate)

    check_gradient(forward, [reference_backward(dout, x, approximate)], [x], dout)


def test_the_twin_has_the_known_values() -> None:
    """Phi(1) = 0.84134474606854 of any table; tanh's formula is off by less than 4e-4 (its paper's
    figure) and not equal."""
    x = np.linspace(-6, 6, 241)
    assert reference_forward(np.ones(1))[0] == pytest.approx(0.8413447460685429, abs=1e-15)
    off = np.abs(reference_forward(x, True) - reference_forward(x)).max()
    assert 1e-4 < off < 1e-3
