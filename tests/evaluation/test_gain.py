"""Before and after on the same files: the interval is of the difference, not of the two figures."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.evaluation.bits import Bits
from gristmill.evaluation.gain import gain

OPTIONS = {"resamples": 500, "confidence": 0.95, "seed": 1}


def test_a_small_gain_on_unequal_files_is_certain() -> None:
    """Files differ by a factor of nine, each gains 5 to 6 %: apart the intervals would overlap."""
    rng = np.random.default_rng(0)
    size = np.full(40, 1000, np.int64)
    before = Bits(rng.uniform(1000, 9000, 40), size)
    after = Bits(before.bits * rng.uniform(0.94, 0.95, 40), size)
    found = gain(before, after, **OPTIONS)
    assert found.before.value == pytest.approx(before.per_byte)
    assert found.difference.value == pytest.approx(after.per_byte - before.per_byte)
    assert found.difference.low is not None and found.difference.high is not None
    assert found.difference.low < found.difference.value < found.difference.high < 0.0
    assert found.after.high > found.before.low  # type: ignore[operator]
    rows = found.table()["rows"]
    assert [row[1] for row in rows] == [i.value for i in vars(found).values()]


def test_other_files_are_refused() -> None:
    one, two = (Bits(np.ones(6), np.full(6, n, np.int64)) for n in (10, 11))
    with pytest.raises(ValueError, match="different documents"):
        gain(one, two, **OPTIONS)
