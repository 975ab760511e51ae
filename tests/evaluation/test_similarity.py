"""Edit distance against the table, keystrokes against their definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.evaluation.similarity import (
    common_prefix,
    edit_distance,
    edit_similarity,
    exact,
    keystrokes,
)

texts = st.text("abé ", max_size=24)


def by_table(a: str, b: str) -> int:
    """Wagner and Fischer 1974."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


@given(a=texts, b=texts)
def test_distance_equals_the_table(a: str, b: str) -> None:
    assert edit_distance(a, b) == by_table(a, b) == edit_distance(b, a)
    assert 0.0 <= edit_similarity(a, b) <= 1.0
    assert (edit_similarity(a, b) == 1.0) == (a == b)


def test_long_texts() -> None:
    assert edit_distance("kitten" * 40, "sitting" * 40) == by_table("kitten" * 40, "sitting" * 40)


@given(truth=texts, completion=texts)
def test_keystrokes(truth: str, completion: str) -> None:
    pressed = keystrokes(truth, completion)
    right = common_prefix(truth, completion)
    assert truth[:right] == completion[:right]
    accepted = 1 + len(completion[right:]) + len(truth[right:])
    assert pressed == min(len(truth), accepted)


@pytest.mark.parametrize(
    ("truth", "completion", "pressed"),
    [
        ("return x", "return x", 1),
        ("return x", "return y", 3),
        ("return x", "nothing", 8),
        ("return x", "return", 3),
    ],
)
def test_keystrokes_by_hand(truth: str, completion: str, pressed: int) -> None:
    assert keystrokes(truth, completion) == pressed


def test_exact_leaves_white_space_at_the_end_out() -> None:
    assert exact("a = 1", "a = 1  \n")
    assert not exact("a = 1", " a = 1")
