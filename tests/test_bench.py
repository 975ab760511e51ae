"""bench: results are verified with or without a peer, samples are symmetric, receipts complete."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench is not installed

from bench.measure import Case, agreement, close, interleave, measure
from bench.receipt import Receipt


def nothing() -> None:
    """A kernel whose result is already there."""


def test_a_wrong_result_is_seen_without_a_peer() -> None:
    out = np.zeros(4, np.float32)
    check = agreement(nothing, lambda: [(out, np.ones(4))], 1e-6, None, lambda: [])
    with pytest.raises(AssertionError, match="ours and the twin differ by 1"):
        check()


def test_a_peer_that_does_other_work_is_seen() -> None:
    out = np.ones(4, np.float32)
    check = agreement(nothing, lambda: [(out, np.ones(4))], 1e-6, nothing, lambda: [(out, 2 * out)])
    with pytest.raises(AssertionError, match="ours and the peer differ by 1"):
        check()


@pytest.mark.parametrize("got", [np.array([1, np.nan]), np.ones(3), np.ones((1, 2))])
def test_nan_and_other_shapes_are_not_close(got: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        close(got, np.ones(2), 1.0, "two arrays")


def test_every_side_is_sampled_alike_and_gives_its_fastest() -> None:
    calls: list[str] = []
    given = {"ours": iter([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]), "ceiling": iter([1.0] * 6)}

    def side(name: str) -> float:
        calls.append(name)
        return next(given[name])

    taken = interleave({n: lambda n=n: side(n) for n in given}, rounds=2, samples=3)
    assert calls == ["ours", "ceiling"] * 6
    assert taken == {"ours": [1.0, 4.0], "ceiling": [1.0, 1.0]}


def test_a_row_has_rate_ratio_and_share_of_the_ceiling() -> None:
    case = Case("c", nothing, nothing, nothing, lambda: 1.0, 8.0, "GB", "itself")
    row = measure(case, rounds=2, samples=1)
    assert row.rate == pytest.approx(8e3 / row.milliseconds)
    assert row.of_ceiling > 1 and row.ratio is not None and "itself" in str(row)


def test_a_receipt_says_where_when_and_with_what(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "r.json"
    receipt = Receipt(path, "ops", {"rounds": 9, "json": path}, {"PyTorch": "2"})
    for name in ("a", "b"):
        receipt.add({"name": name})
    kept = json.loads(path.read_text())
    assert [row["name"] for row in kept["rows"]] == ["a", "b"]
    assert kept["settings"] == {"rounds": 9} and kept["peers"] == {"PyTorch": "2"}
    assert {"processor", "cores", "table", "threads"} <= set(kept["machine"])
    assert kept["date"].endswith("Z") and "commit" in kept
    assert str(tmp_path) not in path.read_text()
