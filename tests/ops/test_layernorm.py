"""layernorm: kernels against the twin, the twin against finite differences, rows independent."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, Floats
from oracle import check_gradient, same_bytes, table, verify

from gristmill.backend import _C
from gristmill.lab.cases.layernorm import cases, data, forward_case
from gristmill.ops.layernorm import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(6)
    x, dout = rng.normal(size=(2, 3, 5))
    weight, bias = rng.normal(size=(2, 5))

    def forward(x: Floats, weight: Floats, bias: Floats) -> Floats:
        return reference_forward(x, weight, bias, 1e-3)[0]

    _, mean, rstd = reference_forward(x, weight, bias, 1e-3)
    gradients = reference_backward(dout, x, weight, mean, rstd)
    check_gradient(forward, gradients, [x, weight, bias], dout)


@pytest.mark.parametrize("name", _C.tables())
def test_a_row_has_the_same_bits_alone_and_among_64(name: str) -> None:
    x, weight, shift = data(64, 100)
    with table(name):
        rest = (weight, shift, False, False)
        together = forward_case("64", "float32", "plain", x, *rest).run()["out"]
        for i in (0, 31, 63):
            alone = forward_case("1", "float32", "plain", x[i : i + 1], *rest).run()["out"]
            same_bytes(f"row {i}", {"out": together.reshape(64, 100)[i]}, {"out": alone})
