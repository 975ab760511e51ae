"""Near-duplicates: every reported pair is exact, and nearly every pair is reported."""

from __future__ import annotations

import random
import re
from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("rensa")

from hypothesis import given
from hypothesis import strategies as st

from gristmill.data import dedup

WORDS = [f"w{i}" for i in range(400)]


def brute(first: str, second: str, width: int) -> float:
    """The definition, on sets of tuples of words."""

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+|[^\w\s]", text)
        width_here = min(width, len(words))
        return {tuple(words[i : i + width_here]) for i in range(len(words) - width_here + 1)} - {()}

    a, b = shingles(first), shingles(second)
    return len(a & b) / len(a | b) if a and b else 0.0


def family(rng: random.Random, count: int, changes: int) -> list[str]:
    """Return texts in groups: copies of a text with more and more words changed."""
    texts = []
    while len(texts) < count:
        base = [rng.choice(WORDS) for _ in range(rng.randint(30, 120))]
        for _ in range(rng.randint(1, 5)):
            copy = list(base)
            for _ in range(rng.randint(0, changes)):
                copy[rng.randrange(len(copy))] = rng.choice(WORDS)
            texts.append(" ".join(copy))
    return texts[:count]


@pytest.mark.parametrize(("threshold", "changes"), [(0.5, 8), (0.8, 3)])
def test_pairs_against_brute_force(threshold: float, changes: int) -> None:
    texts = family(random.Random(5), 300, changes)
    expected = {
        (i, j): similarity
        for i, j in combinations(range(len(texts)), 2)
        if (similarity := brute(texts[i], texts[j], 5)) >= threshold
    }
    found = {(p.first, p.second): p.similarity for p in dedup.similar_pairs(texts, threshold)}
    assert len(expected) > 100
    assert set(found) <= set(expected)
    assert len(found) >= 0.99 * len(expected)
    for pair, similarity in found.items():
        assert similarity == pytest.approx(expected[pair])


@given(st.lists(st.text("ab \n.", max_size=20), max_size=8), st.integers(1, 6))
def test_similarity_is_the_definition(texts: list[str], width: int) -> None:
    sets = dedup.shingle_sets(texts, width)
    for i, j in combinations(range(len(texts)), 2):
        assert dedup.jaccard(sets[i], sets[j]) == pytest.approx(brute(texts[i], texts[j], width))
    for pair in dedup.similar_pairs(texts, 0.5, words=width):
        assert pair.similarity >= 0.5


@given(st.lists(st.text("ab ", max_size=12), max_size=8), st.randoms())
def test_pairs_do_not_depend_on_the_company(texts: list[str], rng: random.Random) -> None:
    """The same two texts are a pair whatever stands between them."""
    order = list(range(len(texts)))
    rng.shuffle(order)
    direct = {(p.first, p.second) for p in dedup.similar_pairs(texts, 0.6)}
    shuffled = dedup.similar_pairs([texts[i] for i in order], 0.6)
    back = {(min(order[a], order[b]), max(order[a], order[b])) for a, b, _ in shuffled}
    assert direct == back


def test_space_does_not_count_and_empty_texts_are_no_pair() -> None:
    pairs = dedup.similar_pairs(["a b\nc", " a  b c", "", " ", "a b d"], 1.0)
    assert pairs == [(0, 1, 1.0)]
    assert dedup.similar_pairs([], 0.5) == []


def test_a_full_bucket_stays_linear_and_connected() -> None:
    texts = [" ".join(WORDS[:50])] * 500
    pairs = dedup.similar_pairs(texts, 0.8)
    assert len(pairs) < 64 * 500
    assert set(dedup.clusters(len(texts), pairs)) == {0}


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("permutations", [64, 128, 256])
def test_bands_reach_the_recall(threshold: float, permutations: int) -> None:
    rows = dedup.rows_per_band(threshold, permutations)
    found = 1 - (1 - threshold**rows) ** (permutations // rows)
    assert found >= dedup.RECALL
    more = rows + 1
    if more <= permutations:
        assert 1 - (1 - threshold**more) ** (permutations // more) < dedup.RECALL


@given(st.integers(1, 30), st.data())
def test_clusters_are_the_connected_parts(count: int, data: st.DataObject) -> None:
    index = st.integers(0, count - 1)
    edges = data.draw(st.lists(st.tuples(index, index)))
    got = dedup.clusters(count, [dedup.Pair(a, b, 1.0) for a, b in edges])
    expected = list(range(count))
    for _ in range(count):  # the smallest number spreads along the edges
        for a, b in edges:
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert got == expected


def test_signatures_are_stable() -> None:
    """The bits that clusters of old runs stand on."""
    sets = dedup.shingle_sets(["def f(x): return x + 1", ""])
    matrix = dedup.signatures(sets, 16)
    assert matrix.dtype == np.uint32
    assert matrix.shape == (2, 16)
    assert not matrix[1].any()
    assert np.array_equal(matrix, dedup.signatures(sets, 16))


@pytest.mark.parametrize("threshold", [0.0, 1.1, -1.0])
def test_thresholds_out_of_range(threshold: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        dedup.similar_pairs(["a"], threshold)
