"""rope: kernels against the twin, the twin against finite differences, prefill against decode."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, Floats, given, wanted
from oracle import check_gradient, same_bytes, table, verify

from gristmill.backend import _C
from gristmill.lab.cases.rope import case, cases, turns
from gristmill.ops.rope import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(9)
    x, dout = rng.normal(size=(2, 2, 3, 1, 6))
    cos, sin = turns(6)
    start = np.array([4, 0])

    def forward(x: Floats) -> Floats:
        return reference_forward(x, cos, sin, start)

    check_gradient(forward, [reference_backward(dout, cos, sin, start)], [x], dout)


@pytest.mark.parametrize("name", _C.tables())
def test_a_position_has_the_same_bits_in_prefill_and_decode(name: str) -> None:
    x = np.random.default_rng(10).normal(size=(1, 20, 2, 30)).astype(np.float32)
    with table(name):
        whole = case("all", given(x), wanted(x.shape), [5], 0, 0).run()["out"].reshape(20, 60)
        for t in (0, 7, 19):
            one = given(x[:, t : t + 1])
            alone = case("one", one, wanted(one.shape), [5 + t], 0, 0).run()["out"]
            same_bytes(f"position {t}", {"out": whole[t]}, {"out": alone})
