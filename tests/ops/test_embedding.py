"""embedding: kernels against the twin, and the twin against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import check_gradient, verify

from gristmill.backend import _C
from gristmill.lab.cases.embedding import cases
from gristmill.ops.embedding import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(12)
    weight, dout, ids = (
        rng.normal(size=(4, 3)),
        rng.normal(size=(6, 3)),
        np.array([2, 0, 2, 3, 2, 0]),
    )
    gradient = reference_backward(dout, ids, 4)
    check_gradient(lambda w: reference_forward(w, ids), [gradient], [weight], dout)


@pytest.mark.parametrize("bad", [-1, 4])
def test_an_id_outside_the_table_is_an_error(bad: int) -> None:
    ids = np.array([0, bad, 1], dtype=np.int32)
    weight, out = _C.empty((4, 3)), _C.empty((3, 3))
    with pytest.raises(IndexError, match=rf"embedding_forward: ids\[1\] is {bad}"):
        _C.embedding_forward(out, weight, _C.from_numpy(ids))
