"""adam: kernels against the twin; the decay is part of the gradient."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import verify

from gristmill.lab.cases.adam import cases
from gristmill.ops import adam, adamw


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_without_decay_it_is_adamw() -> None:
    rng = np.random.default_rng(0)
    given = (*rng.normal(size=(2, 9)), rng.random(9), rng.normal(size=9), [0.1, 0.5, 0.1, 0.01])
    for one, other in zip(
        adam.reference_forward(*given, 0.9, 0.99, 1e-8, 0),
        adamw.reference_forward(*given, 0.9, 0.99, 1e-8, 0),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-14)
