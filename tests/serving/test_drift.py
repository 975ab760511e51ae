"""Drift: the statistics against scipy and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.checkpoint.reference import summary
from gristmill.serving import drift


def test_ks_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for n, m, shift in ((60, 200, 0.0), (300, 200, 0.3), (50, 50, 1.0), (300, 200, 0.02)):
        a, b = rng.normal(shift, 1, n), rng.normal(0, 1, m)
        want = stats.ks_2samp(a, b, method="exact")
        distance, p = drift.ks(a, b)
        assert distance == pytest.approx(want.statistic, abs=1e-12)
        assert p == pytest.approx(want.pvalue, abs=0.02)  # Stephens's approximation


def test_ks_of_equal_samples() -> None:
    a = np.arange(100.0)
    assert drift.ks(a, a) == (0.0, 1.0)


def test_psi_by_hand() -> None:
    """The deciles of a reference that is mostly 0 are 0 (7 times) and 1: bins up to 0, up to 1 and
    above, with half a count more each."""
    reference = np.array([0.0] * 15 + [1.0] * 5)
    sample = np.array([0.0] * 10 + [1.0] * 9 + [2.0])
    p, q = np.array([10.5, 9.5, 1.5]) / 21.5, np.array([15.5, 5.5, 0.5]) / 21.5
    assert drift.psi(sample, reference) == pytest.approx(float(((p - q) * np.log(p / q)).sum()))
    assert drift.psi(reference, reference) == 0.0


@pytest.mark.parametrize(("n", "least"), [(60, 380), (300, 400)])
def test_false_alarms_and_detections(n: int, least: int) -> None:
    """400 windows of 9 features: at most ALPHA of those without a shift may alarm (4; we allow the
    95 % bound of a binomial, 8); a shift of one standard deviation is (nearly) always seen."""
    rng = np.random.default_rng(n)
    names = [f"text.f{i}" for i in range(9)]
    reference = {name: summary(rng.normal(size=200), 200) for name in names}
    false = seen = 0
    for _ in range(400):
        window = {name: rng.normal(size=n) for name in names}
        false += any(s.drifted for s in drift.compare(window, reference))
        window[names[0]] = rng.normal(1.0, 1, n)
        found = drift.compare(window, reference)
        seen += found[0].feature == names[0] and found[0].drifted
    assert false <= 8
    assert seen >= least


def test_few_values_say_nothing() -> None:
    reference = {"a": summary(np.arange(200.0), 200), "b": summary(np.arange(10.0), 10)}
    window = {"a": [1e9] * (drift.FEWEST - 1), "b": [1e9] * 300, "unknown": [1.0] * 300}
    assert drift.compare(window, reference) == []


def test_a_constant_feature_that_stays_is_no_drift() -> None:
    reference = {"a": summary(np.zeros(200), 200)}
    assert not drift.compare({"a": np.zeros(300)}, reference)[0].drifted
    assert drift.compare({"a": np.ones(300)}, reference)[0].drifted


def test_requests_of_one_text_weigh_as_one() -> None:
    """30 texts a side, ten requests of each that are all alike: without a shift at most 8 of 400
    windows may alarm (as above); taken for 300 independent requests most of them would."""
    rng = np.random.default_rng(8)
    alarms = naive = 0
    for _ in range(400):
        ours, theirs = (np.repeat(rng.normal(size=30), 10) for _ in range(2))
        alarms += any(s.drifted for s in drift.compare({"a": ours}, {"a": summary(theirs, 30)}))
        naive += any(s.drifted for s in drift.compare({"a": ours}, {"a": summary(theirs, 300)}))
    assert alarms <= 8 and naive > 100
