"""linear_cross_entropy: kernels against the twin in one pass and over several chunks of rows."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case
from oracle import check_gradient, same_bytes, table, verify

import gristmill as gm
from gristmill.backend import _C
from gristmill.lab.cases.linear_cross_entropy import cases
from gristmill.ops.linear_cross_entropy import (
    linear_cross_entropy,
    reference_backward,
    reference_forward,
)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(25)
    x, w, targets = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), np.array([0, -100, 4, 2])
    gradients = reference_backward(0.25, x, w, targets)
    check_gradient(
        lambda x, w: reference_forward(x, w, targets), gradients, [x, w], np.full(4, 0.25)
    )


@pytest.mark.parametrize("name", _C.tables())
def test_a_row_has_the_same_loss_and_gradient_alone_and_among_64(name: str) -> None:
    rng = np.random.default_rng(26)
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((64, 20), (50, 20)))
    targets = rng.integers(0, 50, 64).astype(np.int32)

    def run(rows: slice) -> dict[str, np.ndarray]:
        part = np.ascontiguousarray(x[rows])
        losses, dx, dw = _C.empty((len(part),)), _C.empty(part.shape), _C.empty(w.shape)
        arrays = (_C.from_numpy(z) for z in (part, w, targets[rows]))
        _C.linear_cross_entropy(losses, dx, dw, *arrays, 0.125, "float32")
        return {"losses": losses.numpy().copy(), "dx": dx.numpy().copy()}

    with table(name):
        together = run(slice(None))
        for i in (0, 11, 63):
            alone = run(slice(i, i + 1))
            same_bytes(f"row {i}", {k: y[i : i + 1] for k, y in together.items()}, alone)


@pytest.mark.parametrize("name", _C.tables())
def test_one_gradient_alone_has_the_same_bits(name: str) -> None:
    """A frozen head wants none of its own. 1040 rows are more than one chunk."""
    rng = np.random.default_rng(1)
    x, w = (_C.from_numpy(rng.normal(size=s).astype(np.float32)) for s in ((1040, 8), (33, 8)))
    targets = _C.from_numpy(rng.integers(0, 33, 1040).astype(np.int32))

    def run(with_x: bool, with_weight: bool) -> dict[str, np.ndarray]:
        outs = {"losses": _C.empty((1040,))}
        outs |= {"dx": _C.empty((1040, 8))} if with_x else {}
        outs |= {"dweight": _C.empty((33, 8))} if with_weight else {}
        given = outs["losses"], outs.get("dx"), outs.get("dweight")
        _C.linear_cross_entropy(*given, x, w, targets, 0.5, "float32")
        return {k: y.numpy() for k, y in outs.items()}

    with table(name):
        both = run(True, True)
        for alone in (run(True, False), run(False, True)):
            same_bytes("alone", {k: both[k] for k in alone}, alone)


@pytest.mark.parametrize("name", _C.tables())
def test_no_rows_have_no_gradient(name: str) -> None:
    x, w, targets = _C.empty((0, 3)), _C.empty((4, 3)), _C.from_numpy(np.zeros(0, np.int32))
    for add, left in ((False, 0), (True, 7)):
        dweight = _C.from_numpy(np.full((4, 3), 7, np.float32))
        out = dweight.accumulating() if add else dweight
        with table(name):
            _C.linear_cross_entropy(
                _C.empty((0,)), _C.empty((0, 3)), out, x, w, targets, 1.0, "float32"
            )
        assert (dweight.numpy() == left).all()


def head_and_text() -> tuple[gm.Tensor, gm.Tensor, np.ndarray]:
    rng = np.random.default_rng(0)
    x = gm.tensor(rng.standard_normal((6, 8), dtype=np.float32))
    weight = gm.tensor(rng.standard_normal((11, 8), dtype=np.float32), requires_grad=True)
    return x, weight, rng.integers(0, 11, 6)


def test_the_weights_gradient_is_computed_where_it_stays() -> None:
    """No second (V, cols) array exists; what comes before backward moves it out."""
    x, weight, targets = head_and_text()
    loss = linear_cross_entropy(x, weight, targets)
    assert weight.grad is None
    place = weight.slot.array.data_ptr
    loss.backward()
    alone = weight.grad.numpy().copy()
    assert weight.grad.array.data_ptr == place
    for order in range(2):
        weight.zero_grad()
        first = linear_cross_entropy(x, weight, targets)
        second = linear_cross_entropy(x, weight, targets)  # the place is taken
        other = (weight * 2.0).sum()
        for one in (other, first, second) if order else (second, first, other):
            one.backward()
        np.testing.assert_allclose(weight.grad.numpy(), 2 * alone + 2, rtol=0, atol=4 * 2.0**-22)
    weight.zero_grad()
    (linear_cross_entropy(x, weight, targets) * 3.0).backward()
    np.testing.assert_allclose(weight.grad.numpy(), 3 * alone, rtol=2.0**-22)
