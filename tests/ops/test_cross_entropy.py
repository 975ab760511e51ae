"""cross_entropy: kernels against the twin, the twin against finite differences, extreme logits."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, given, wanted
from oracle import check_gradient, same_bytes, table, verify

from gristmill.backend import _C
from gristmill.lab.cases.cross_entropy import PIECE, backward_case, cases, forward_case
from gristmill.ops.cross_entropy import reference_backward, reference_forward


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_gradient_of_the_twin() -> None:
    rng = np.random.default_rng(23)
    logits, dout = rng.normal(size=(4, 6)), rng.normal(size=4)
    targets = np.array([5, -100, 0, 2])
    for s in (0.0, 0.2):
        gradient = reference_backward(dout, logits, targets, s)
        check_gradient(
            lambda x, s=s: reference_forward(x, targets, s)[0], [gradient], [logits], dout
        )


def test_smoothing_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(27)
    logits, targets = rng.normal(0, 3, (5, 11)), np.array([3, -100, 0, 10, 2])
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(targets), label_smoothing=0.1
    )
    ours = reference_forward(logits, targets, 0.1)[0].sum() / 4
    assert ours == pytest.approx(float(theirs), rel=1e-12)


def test_smoothing_outside_its_range_is_an_error() -> None:
    targets = _C.from_numpy(np.zeros(2, np.int32))
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="0 <= smoothing < 1"):
            _C.cross_entropy_forward(_C.empty((2,)), None, _C.empty((2, 5)), targets, wrong)


@pytest.mark.parametrize("name", _C.tables())
def test_extreme_logits(name: str) -> None:
    """Nothing overflows; what is impossible costs infinity; NaN is not hidden."""
    rows = [[1e4, -1e4, 0], [-3e38, -3e38, -3e38], [-np.inf, 0, 0], [0, np.nan, 0]]
    losses = _C.empty((4,))
    with table(name):
        _C.cross_entropy_forward(
            losses,
            None,
            _C.from_numpy(np.array(rows, np.float32)),
            _C.from_numpy(np.zeros(4, np.int32)),
        )
    got = losses.numpy()
    assert got[0] == 0 and got[1] == pytest.approx(0, abs=1e32)
    assert got[2] == np.inf and np.isnan(got[3])


@pytest.mark.parametrize("name", _C.tables())
def test_a_piece_of_nothing_but_minus_infinity_counts_nothing(name: str) -> None:
    x = np.full((2, PIECE + 20), -np.inf, np.float32)
    x[0, PIECE:], x[1, :20] = 1, 1
    losses, targets = _C.empty((2,)), _C.from_numpy(np.array([PIECE, 0], np.int32))
    with table(name):
        _C.cross_entropy_forward(losses, None, _C.from_numpy(x), targets)
    assert losses.numpy() == pytest.approx(np.log(20), rel=1e-6)


@pytest.mark.parametrize("name", _C.tables())
def test_a_row_has_the_same_bits_alone_and_among_64(name: str) -> None:
    rng = np.random.default_rng(24)
    x, targets = rng.normal(0, 4, (64, 77)), rng.integers(0, 77, 64)
    with table(name):
        together = forward_case("64", given(x), given(targets, "int32")).run()["lse"]
        for i in (0, 5, 63):
            one = forward_case("1", given(x[i : i + 1]), given(targets[i : i + 1], "int32"))
            same_bytes(f"row {i}", {"lse": together[i : i + 1]}, {"lse": one.run()["lse"]})


def test_a_target_outside_the_vocabulary_is_an_error() -> None:
    targets = _C.from_numpy(np.array([1, 5], np.int32))
    with pytest.raises(IndexError, match=r"targets\[1\] is 5"):
        _C.cross_entropy_forward(_C.empty((2,)), None, _C.empty((2, 5)), targets)


@pytest.mark.parametrize("name", _C.tables())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_ignored_row_has_no_gradient_whatever_its_logits(name: str, dtype: str) -> None:
    x = np.zeros((3, 20))
    x[0, 3], x[1, 4], x[2, 5] = np.inf, np.nan, -np.inf
    for start in (None, np.ones(x.shape)):
        out = wanted(x.shape, dtype, "gaps", start)
        given_rows = given(x, dtype), given(np.full(3, -1), "int32")
        with np.errstate(invalid="ignore"):  # the twin's lse is NaN too
            one = backward_case(np.random.default_rng(25), "ignored", *given_rows, out)
        with table(name):
            got = out.read(one.run()["dlogits"])
        np.testing.assert_array_equal(
            got, given(np.zeros(x.shape) if start is None else start, dtype).read()
        )
