"""Slices and contamination."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.evaluation.contamination import RUN, overlaps
from gristmill.evaluation.slices import DIFFICULTIES, OTHER, areas, groups, label_all, quartiles


@given(values=st.lists(st.floats(0, 1), max_size=40))
def test_quartiles_are_even_and_ordered(values: list[float]) -> None:
    labels = quartiles(values, DIFFICULTIES)
    sizes = [labels.count(name) for name in DIFFICULTIES]
    assert sum(sizes) == len(values)
    assert max(sizes) - min(sizes) <= 1
    for lower, upper in itertools.pairwise(DIFFICULTIES):
        below = [v for v, label in zip(values, labels, strict=True) if label == lower]
        above = [v for v, label in zip(values, labels, strict=True) if label == upper]
        assert not below or not above or max(below) <= min(above)


def test_small_areas_become_one() -> None:
    given_areas = ["a", "a", "a", "b", "c", "c"]
    assert areas(given_areas) == ["a", "a", "a", OTHER, OTHER, OTHER]
    found = groups(areas(given_areas))
    assert list(found) == ["a", OTHER]
    assert list(found[OTHER]) == [3, 4, 5]


def test_unknown_slice() -> None:
    found = label_all(["length"], ["a", "b"], [5, 1], [1.0, 2.0])
    assert found == {"length": ["3 long", "1 shortest"]}
    with pytest.raises(ValueError, match="'colour' given"):
        label_all(["colour"], [], [], [])


def test_copied_runs_are_found_and_chance_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    train = [rng.integers(0, 500, 400).astype(np.uint16) for _ in range(20)]
    tokens = np.concatenate(train)
    offsets = np.cumsum([0, *(len(d) for d in train)])
    fresh = rng.integers(0, 500, 300).astype(np.uint16)
    half = np.concatenate([fresh[:200], train[7][100:300]])
    across = np.concatenate([train[3][-20:], train[4][:20]])  # a run never spans two documents
    short = train[2][: RUN - 1]
    found = overlaps(tokens, offsets, [fresh, half, across, short, train[5]])
    assert [o.source for o in found] == [-1, 7, -1, -1, 5]
    assert found[1].share == pytest.approx(0.5)
    assert found[4].share == 1.0
    assert found[0].share == found[2].share == found[3].share == 0.0
