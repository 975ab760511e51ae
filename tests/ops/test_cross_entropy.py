"""cross_entropy: kernels against the twin, the twin against finite differences, extreme logits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cases import SIZES, TINY, Case, Floats, Operand, U, gamma, given, wanted
from oracle import check_gradient, same_bytes, table, verify

from gristmill.backend import _C
from gristmill.ops.cross_entropy import reference_backward, reference_forward

LAYOUTS = [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "gaps")]
SHAPES = [(3, n) for n in SIZES] + [(1, 257), (9, 1000)]


def lse_bound(x: Floats) -> Floats:
    """exp: 6 U and the rounding of its argument x - max; the sum: a lane's steps and the tree; the
    logarithm: 6 U; max + log: one rounding."""
    top = x.max(axis=1, keepdims=True)
    _, lse = reference_forward(x, np.zeros(len(x), int))
    spread = (np.exp(x - lse[:, None]) * (top - x)).sum(axis=1)
    chain = gamma(-(-x.shape[1] // 16) + 4)
    return chain + U * (6 + spread + 6 * np.abs(lse - top[:, 0]) + np.abs(lse))


def smoothing_bound(x: Floats, targets: Floats, smoothing: float) -> Floats:
    """The mean: a lane's steps, the tree, a division; 1 - s, two products, two sums."""
    if not smoothing:
        return np.zeros(len(x))
    mean = gamma(-(-x.shape[1] // 16) + 5) * np.abs(x).mean(axis=1)
    own = np.abs(np.take_along_axis(x, np.maximum(targets, 0)[:, None], axis=1)[:, 0])
    smoothed = (1 - smoothing) * own + smoothing * np.abs(x).mean(axis=1)
    return smoothing * mean + U * 4 * smoothed


def draw(rng: np.random.Generator, shape: tuple[int, int], *where: str) -> tuple[Operand, Operand]:
    """Logits and targets, about one in four ignored."""
    rows, v = shape
    targets = np.where(rng.random(rows) < 0.25, -100, rng.integers(0, v, rows))
    return given(rng.normal(0, 4, shape), *where), given(targets, "int32", "spread")


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(22)
    for dtype, layout in LAYOUTS:
        for shape in SHAPES:
            logits, targets = draw(rng, shape, dtype, layout)
            name = f"{shape[0]}x{shape[1]}-{dtype}-{layout}"
            yield forward_case(name, logits, targets)
            yield backward_case(rng, name, logits, targets, wanted(shape, dtype, layout))
            added = wanted(shape, dtype, layout, rng.normal(size=shape))
            yield backward_case(rng, f"{name}-added", logits, targets, added)
            place = wanted(shape, dtype, layout, logits.values, accumulate=False)
            if shape[1] in (1, 17, 1000):
                yield forward_case(f"{name}-smoothed", logits, targets, 0.1)
                yield backward_case(rng, f"{name}-smoothed", logits, targets, added, 0.1)
            logits.storage = place.storage
            yield backward_case(rng, f"{name}-in-place", logits, targets, place)


def forward_case(name: str, logits: Operand, targets: Operand, smoothing: float = 0.0) -> Case:
    rows, v = logits.shape
    smoothing = float(np.float32(smoothing))
    losses, lse = reference_forward(logits.values, targets.read(), smoothing)
    bound = lse_bound(logits.values)
    counted = targets.read() >= 0
    more = smoothing_bound(logits.values, targets.read(), smoothing)
    return Case(
        "cross_entropy_forward",
        name,
        {
            "losses": wanted((rows,), layout="spread"),
            "lse": wanted((rows,)),
            "logits": logits,
            "targets": targets,
            "rows": rows,
            "V": v,
            "smoothing": smoothing,
        },
        {"losses": (losses, (bound + more + U * np.abs(losses)) * counted), "lse": (lse, bound)},
    )


def backward_case(
    rng: np.random.Generator,
    name: str,
    logits: Operand,
    targets: Operand,
    out: Operand,
    smoothing: float = 0.0,
) -> Case:
    rows, v = logits.shape
    smoothing = float(np.float32(smoothing))
    x, t = logits.values, targets.read()
    lse = given(reference_forward(x, t)[1])
    dlosses = given(rng.normal(size=rows))
    dlogits = reference_backward(dlosses.values, x, t, smoothing)
    # p = exp(x - lse): 6 U, the argument's rounding and that of the given lse; minus one; a product
    arg = np.abs(x - lse.values[:, None])
    p = np.exp(x - lse.values[:, None])
    size = np.abs(dlosses.values)[:, None] * (t >= 0)[:, None]
    bound = U * size * (p * (8 + arg + np.abs(lse.values)[:, None])) + 2 * U * np.abs(dlogits)
    if smoothing:  # s / V, taken from p and both times dloss; (1 - s) dloss taken from that
        bound += U * size * (4 * (p + smoothing / v) + 3 * np.eye(v)[np.maximum(t, 0)])
    return Case(
        "cross_entropy_backward",
        name,
        {
            "dlogits": out,
            "dlosses": dlosses,
            "logits": "=dlogits" if out.storage is logits.storage else logits,
            "lse": lse,
            "targets": targets,
            "rows": rows,
            "V": v,
            "smoothing": smoothing,
        },
        {"dlogits": (dlogits, bound + TINY)},
    )


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
