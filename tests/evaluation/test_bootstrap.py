"""Intervals: the figure itself, coverage on known data, pairing, independence of order of work."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.evaluation import bootstrap
from gristmill.evaluation.bootstrap import interval, paired_difference, resampled


def test_the_value_is_the_ratio_of_sums() -> None:
    bits, size = np.array([3.0, 10.0] * 3), np.array([1, 9] * 3)
    found = interval(bits, size, seed=1)
    assert found.value == pytest.approx(1.3)
    assert found.low is not None and found.high is not None
    assert 10 / 9 <= found.low <= found.value <= found.high <= 3.0


def test_equal_documents_leave_no_doubt() -> None:
    found = interval(np.full(20, 4.0), np.full(20, 2), seed=3)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_width_follows_the_normal_approximation() -> None:
    values = np.random.default_rng(5).normal(10.0, 2.0, 400)
    found = interval(values, np.ones(400), resamples=4000, seed=2)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(11)
    held = 0
    for trial in range(200):
        size = rng.integers(1, 20, 60)
        bits = size * rng.normal(2.0, 0.5, 60)
        found = interval(bits, size, resamples=400, seed=trial)
        held += found.low <= 2.0 <= found.high
    assert 0.88 <= held / 200 <= 0.99  # 95 % less the bias of few documents; 6 sigma of 200 trials


def test_pairing_sees_a_difference_that_two_intervals_do_not() -> None:
    rng = np.random.default_rng(4)
    size = np.ones(50)
    first = rng.normal(5.0, 2.0, 50)
    second = first - 0.1
    difference = paired_difference(first, second, size, seed=9)
    assert difference.low == pytest.approx(0.1)
    assert difference.high == pytest.approx(0.1)
    a, b = interval(first, size, seed=9), interval(second, size, seed=9)
    assert a.low < b.high  # they overlap


def test_draws_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    values, size = np.arange(7.0), np.arange(1, 8)
    whole = resampled(values, size, 100, 6)
    monkeypatch.setattr(bootstrap, "BLOCK", 21)
    np.testing.assert_array_equal(whole, resampled(values, size, 100, 6))
    assert not np.array_equal(whole, resampled(values, size, 100, 7))


def test_draws_without_a_denominator_are_left_out() -> None:
    found = interval(np.array([1.0] * 5 + [0.0] * 20), np.array([2] * 5 + [0] * 20), seed=1)
    assert (found.low, found.high) == (0.5, 0.5)
    few = interval(np.array([1.0] * 4 + [0.0] * 20), np.array([2] * 4 + [0] * 20), seed=1)
    assert (few.value, few.low, few.high) == (0.5, None, None)  # 4 documents have text
    with pytest.raises(ValueError, match="sum to 0"):
        interval(np.array([1.0]), np.array([0]))
    with pytest.raises(ValueError, match="given"):
        resampled(np.ones(3), np.ones(2), 10, 0)
