"""The sampler against a readable twin in NumPy: same candidates, same counter-based draw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

_C = pytest.importorskip("gristmill._C")

STREAM = 0x73616D706C65
MASK = 0xFFFFFFFF


def philox(seed: int, stream: int, index: int) -> list[int]:
    """Philox4x32-10 of Salmon et al. 2011, four words."""
    c = [index & MASK, index >> 32, stream & MASK, stream >> 32]
    k0, k1 = seed & MASK, seed >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & MASK, (p0 >> 32) ^ c[3] ^ k1, p0 & MASK]
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c


def candidates(
    logits: npt.NDArray[np.float32], temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Ids that may be drawn, most probable first, and their weights relative to the first."""
    order = np.lexsort((np.arange(len(logits)), -logits))
    wide = logits.astype(np.float64)
    weights = np.exp((wide[order] - wide[order[0]]) / np.float64(np.float32(temperature)))
    if top_k:
        order, weights = order[:top_k], weights[:top_k]
    if top_p < 1:
        before = np.concatenate([[0.0], np.cumsum(weights)[:-1]])
        keep = before < weights.sum() * np.float64(np.float32(top_p))
        order, weights = order[keep], weights[keep]
    keep = weights >= np.float64(np.float32(min_p))
    return order[keep], weights[keep]


def test_philox_known_answer() -> None:
    """The vector of Random123's kat_vectors file for philox4x32-10, all ones."""
    ones = 2**64 - 1
    assert philox(ones, ones, ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.3, 0.8, 1.0, 2.0]),
    st.integers(0, 12),
    st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**40),
)
def test_draw_equals_the_twin(
    V: int,
    noise: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    position: int,
) -> None:
    logits = np.random.default_rng(noise).normal(0, 3, V).astype(np.float32)
    ids, weights = candidates(logits, temperature, top_k, top_p, min_p)
    if (
        top_k in (0, *range(V, 13)) and top_p == 1.0
    ):  # nothing sorts: the draw walks the ids in order
        order = np.argsort(ids)
        ids, weights = ids[order], weights[order]
    word = philox(seed, STREAM, position)
    u = (word[0] << 21 ^ word[1] >> 11) * 2.0**-53
    edges = np.cumsum(weights)
    wanted = u * edges[-1]
    at = min(int(np.searchsorted(edges, wanted, side="right")), len(ids) - 1)
    got = _C.sample(logits, temperature, top_k, top_p, min_p, seed, position)
    if abs(edges - wanted).min() > 1e-9:  # on an edge the last bit of exp decides
        assert got == ids[at]
    else:
        assert got in ids


@given(st.lists(st.sampled_from([-1.0, 0.0, 2.5, 2.5]), min_size=1, max_size=20))
def test_temperature_zero_takes_the_lowest_of_equal_ids(values: list[float]) -> None:
    logits = np.array(values, np.float32)
    assert _C.sample(logits, 0.0, 0, 1.0, 0.0, 1, 2) == int(np.argmax(logits))


def test_frequencies_follow_the_softmax() -> None:
    logits = np.array([0.0, 1.0, 2.0, -1.0, 1.5], np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    n = 20_000
    counts = np.bincount([_C.sample(logits, 1.0, 0, 1.0, 0.0, 5, i) for i in range(n)], minlength=5)
    deviation = np.sqrt(n * probabilities * (1 - probabilities))
    assert (abs(counts - n * probabilities) < 5 * deviation).all()


def test_the_draw_depends_on_seed_and_position_only() -> None:
    logits = np.zeros(1000, np.float32)
    draws = [_C.sample(logits, 1.0, 0, 1.0, 0.0, 9, i) for i in range(50)]
    assert draws == [_C.sample(logits, 1.0, 0, 1.0, 0.0, 9, i) for i in range(50)]
    assert draws != [_C.sample(logits, 1.0, 0, 1.0, 0.0, 10, i) for i in range(50)]
    assert len(set(draws)) > 40


def test_minus_infinity_is_never_drawn() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0], np.float32)
    assert {_C.sample(logits, 1.5, 0, 1.0, 0.0, 3, i) for i in range(100)} == {1, 3}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((-0.1, 0, 1.0, 0.0), "temperature"),
        ((float("nan"), 0, 1.0, 0.0), "temperature"),
        ((1.0, -1, 1.0, 0.0), "top_k"),
        ((1.0, 0, 0.0, 0.0), "top_p"),
        ((1.0, 0, 1.1, 0.0), "top_p"),
        ((1.0, 0, 1.0, -0.1), "min_p"),
        ((1.0, 0, 1.0, 1.1), "min_p"),
    ],
)
def test_options_out_of_range_are_refused(
    options: tuple[float, int, float, float], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        _C.sample(np.zeros(4, np.float32), *options, 0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="token 2"):
        _C.sample(np.array([0, 1, bad], np.float32), 1.0, 0, 1.0, 0.0, 0, 0)
    with pytest.raises(ValueError, match="inf"):
        _C.sample(np.full(3, -np.inf, np.float32), 1.0, 0, 1.0, 0.0, 0, 0)


def test_other_dtypes_are_not_cast_silently() -> None:
    with pytest.raises(TypeError):
        _C.sample(np.zeros(4, np.float64), 0.0, 0, 1.0, 0.0, 0, 0)
