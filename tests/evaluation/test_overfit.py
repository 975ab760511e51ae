"""The verdict: which of four, and that it names keys that exist."""

from __future__ import annotations

import pytest

pytest.importorskip("pydantic")

from gristmill.config import Config
from gristmill.evaluation.bootstrap import Interval
from gristmill.evaluation.overfit import _ADVICE, judge, remedy


def around(value: float, half: float = 0.02) -> Interval:
    return Interval(value, value - half, value + half)


FALLING = [(s, 4.0 - s / 500) for s in range(100, 1001, 100)]
FLAT = [(s, 2.0) for s in range(100, 1001, 100)]
TURNED = [(s, 2.0 + abs(s - 500) / 1000) for s in range(100, 1001, 100)]


@pytest.mark.parametrize(
    ("train", "val", "looks", "kind"),
    [
        (around(1.5), around(1.9), FALLING, "overfitting"),
        (around(1.5, 0.3), around(1.9, 0.3), FLAT, "in balance"),  # the files may just differ
        (around(1.8), around(1.9), TURNED, "past its best"),
        (around(1.8), around(1.9), FALLING, "still improving"),
        (around(1.9), around(1.8), FLAT, "in balance"),
        (around(1.9), around(1.8), [], "in balance"),
        (around(1.5), Interval(1.9, None, None), FLAT, "in balance"),  # too few files
    ],
)
def test_kinds(train: Interval, val: Interval, looks: list[tuple[int, float]], kind: str) -> None:
    verdict = judge(train, val, looks, 1000, 0.15)
    assert verdict.kind == kind
    assert verdict.gap == pytest.approx(val.value - train.value)
    assert verdict.keys and all(key in verdict.text for key in verdict.keys)
    assert verdict.plain()["train"]["low"] == train.low


def test_every_key_named_exists() -> None:
    config = Config()
    for _, keys in _ADVICE.values():
        for key in keys:
            section, name = key.split(".")
            assert hasattr(getattr(config, section), name), key


def test_the_remedy_turns_what_is_left_to_turn() -> None:
    first = remedy("overfitting", 0.0, 0.1, 700, 1000)
    assert first == {"train.dropout": 0.1, "train.weight_decay": 0.2}
    assert remedy("overfitting", 0.25, 0.4, 700, 1000) == {"train.dropout": 0.3}
    assert remedy("overfitting", 0.3, 0.4, 700, 1000) == {}
    assert remedy("past its best", 0.0, 0.1, 700, 1000) == {"design.steps": 700}
    assert remedy("past its best", 0.0, 0.1, 1000, 1000) == {}
    for kind in ("still improving", "in balance"):
        assert remedy(kind, 0.0, 0.1, 700, 1000) == {}
    config = Config()
    for key in (*first, "design.steps"):
        section, name = key.split(".")
        assert hasattr(getattr(config, section), name), key
