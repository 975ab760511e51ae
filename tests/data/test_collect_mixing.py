"""The mixture: what is asked of each group is what comes out, and what does not is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

from pydantic import ValidationError

from gristmill.artifacts import write_json
from gristmill.data.collect_settings import CollectConfig, FilesSource, MixConfig, RowsSource
from gristmill.data.collecting import Collected, collect
from gristmill.data.repeats import MIXTURE, repeats_in
from gristmill.data.store import Store
from gristmill.errors import ConfigError

SIZE = 100  # bytes of every text here, so a budget is met to within one of them


def fill(root: Path, *, files: int, rows: int) -> list[Any]:
    """A folder of prose files and a table of code rows, SIZE bytes each."""
    folder = root / "prose"
    folder.mkdir()
    for number in range(files):
        (folder / f"{number:03}.txt").write_text(f"file {number} ".ljust(SIZE, "."))
    texts = ({"text": f"row {number} ".ljust(SIZE, "."), "t": number} for number in range(rows))
    (root / "code.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    files_source = FilesSource(use="files", path=str(folder), licence="MIT", why="t", git=False)
    path = str(root / "code.jsonl")
    rows_source = RowsSource(
        use="jsonl", path=path, licence="MIT", why="t", name="table", group="code", time_column="t"
    )
    return [files_source, rows_source]


def gather(root: Path, sources: list[Any], seed: int = 1, limit: int = 0, **mix: Any) -> Collected:
    config = CollectConfig(source=sources, mix=MixConfig(**mix), limit=limit, max_faulty=0.0)
    return collect(config, Store(root / "raw"), seed)


def sizes(got: Collected) -> dict[str, int]:
    return {group["group"]: group["bytes_with_repeats"] for group in got.mixture["groups"]}


def names(got: Collected) -> set[str]:
    return {f"{d.source}/{d.path}" for d in got.documents}


@pytest.fixture
def sources(tmp_path: Path) -> list[Any]:
    return fill(tmp_path, files=100, rows=100)


def test_shares_are_met(tmp_path: Path, sources: list[Any]) -> None:
    got = gather(tmp_path, sources, weights={"prose": 3.0, "code": 1.0}, bytes=8000)
    assert sizes(got) == {"prose": 6000, "code": 2000}
    assert got.shortfall == 0.0
    assert [(s["source"], s["group"], s["share"]) for s in got.mixture["sources"]] == [
        ("prose", "prose", 0.75), ("table", "code", 0.25)
    ]  # fmt: skip
    reasons = {(s.source, s.reason) for s in got.skipped}
    assert reasons == {
        ("prose", "beyond what collect.mix asks for"),
        ("table", "rows beyond what collect.mix asks for (80 of 100)"),
    }
    assert len(Store(tmp_path / "raw").digests()) == 60


def test_a_larger_mixture_keeps_the_smaller_one(tmp_path: Path, sources: list[Any]) -> None:
    weights = {"prose": 1.0, "code": 1.0}
    few = gather(tmp_path, sources, weights=weights, bytes=4000)
    more = gather(tmp_path, sources, weights=weights, bytes=9000)
    assert names(few) < names(more)
    assert names(gather(tmp_path, sources, weights=weights, bytes=4000)) == names(few)
    assert names(gather(tmp_path, sources, 2, weights=weights, bytes=4000)) != names(few)


def test_without_a_size_no_group_falls_short(tmp_path: Path) -> None:
    sources = fill(tmp_path, files=100, rows=30)
    got = gather(tmp_path, sources, weights={"prose": 1.0, "code": 1.0})
    assert sizes(got) == {"prose": 3000, "code": 3000}
    got = gather(tmp_path, sources, weights={"prose": 1.0, "code": 1.0}, repeats=2)
    assert sizes(got) == {"prose": 6000, "code": 6000}
    assert set(got.mixture["repeats"]) == {"table"}
    assert set(got.mixture["repeats"]["table"].values()) == {2}


def test_a_group_that_falls_short_says_by_how_much(tmp_path: Path) -> None:
    sources = fill(tmp_path, files=100, rows=30)
    weights = {"prose": 1.0, "code": 1.0}
    got = gather(tmp_path, sources, weights=weights, bytes=8000)
    assert sizes(got) == {"prose": 4000, "code": 3000}
    assert got.shortfall == 0.25
    got = gather(tmp_path, sources, weights=weights, bytes=8000, repeats=2)
    assert sizes(got) == {"prose": 4000, "code": 4000}
    assert got.shortfall == 0.0
    assert sorted(got.mixture["repeats"]["table"].values()) == [2] * 10  # 10 of 30 read again
    got = gather(tmp_path, sources, weights=weights, bytes=20_000, repeats=3)
    assert sizes(got) == {"prose": 10_000, "code": 9000}
    assert got.shortfall == pytest.approx(0.1)


def test_repeats_reach_the_train_split(tmp_path: Path) -> None:
    sources = fill(tmp_path, files=10, rows=4)
    got = gather(tmp_path, sources, weights={"prose": 1.0, "code": 1.0}, repeats=9)
    write_json(tmp_path / MIXTURE, got.mixture)
    times = repeats_in(tmp_path)
    counts = [times(d) for d in got.documents if d.source == "table"]
    assert sum(counts) == 10  # as much as the 10 files
    assert {times(d) for d in got.documents if d.source == "prose"} == {1}


def test_a_size_alone_and_tokens(tmp_path: Path, sources: list[Any]) -> None:
    got = gather(tmp_path, sources, tokens=1000, bytes_per_token=5.0)
    assert sizes(got) == {"all": 5000}
    assert got.mixture["bytes_asked"] == 5000
    assert {d.source for d in got.documents} == {"prose", "table"}
    everything = gather(tmp_path, sources)
    assert len(everything.documents) == 200
    assert everything.mixture["bytes_asked"] is None
    assert everything.shortfall == 0.0


def test_weight_0_leaves_a_group_out(tmp_path: Path, sources: list[Any]) -> None:
    got = gather(tmp_path, sources, weights={"prose": 1.0, "code": 0.0})
    assert sizes(got) == {"prose": 10_000, "code": 0}
    assert [(s.path, s.reason) for s in got.skipped] == [("code.jsonl", "weight 0 in collect.mix")]
    got = gather(tmp_path, sources, weights={"prose": 0.0, "code": 1.0})
    assert {s.reason for s in got.skipped} == {"weight 0 in collect.mix"}


def test_limit_comes_before_the_mixture(tmp_path: Path, sources: list[Any]) -> None:
    got = gather(tmp_path, sources, limit=50, weights={"prose": 1.0, "code": 1.0}, bytes=2000)
    assert sizes(got) == {"prose": 1000, "code": 1000}
    limited = gather(tmp_path, sources, limit=50)
    assert names(got) < names(limited)
    got = gather(tmp_path, sources, limit=10, weights={"prose": 1.0, "code": 1.0}, bytes=2000)
    assert names(got) == names(gather(tmp_path, sources, limit=10))
    assert got.shortfall >= 0.3  # ten of twenty; one group has at most seven of its ten


def test_order(tmp_path: Path, sources: list[Any]) -> None:
    def order(sort: str, seed: int = 1) -> list[str]:
        return [d.path for d in gather(tmp_path, sources, seed, sort=sort).documents]

    plain = order("source")
    assert plain[:2] == ["000.txt", "001.txt"]
    assert plain[100:103] == ["code.jsonl#1", "code.jsonl#2", "code.jsonl#3"]  # not #1, #10, #100
    shuffled = order("shuffle")
    assert sorted(shuffled) == sorted(plain) != shuffled
    assert shuffled != order("shuffle", 2)
    assert order("time")[:100] == plain[100:]  # rows are of 1970


def test_groups_and_weights_must_fit(tmp_path: Path, sources: list[Any]) -> None:
    said = r"weights names prose; the sources are of the groups prose, code; give each"
    with pytest.raises(ConfigError, match=said):
        gather(tmp_path, sources, weights={"prose": 1.0})
    with pytest.raises(ConfigError, match="groups prose, code"):
        gather(tmp_path, sources, weights={"prose": 1.0, "code": 1.0, "table": 1.0})


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ({"bytes": 5, "tokens": 5}, "bytes 5 and tokens 5 given"),
        ({"weights": {"a": 0.0}}, "weights are all 0"),
        ({"weights": {"a": -1.0}}, "greater than or equal to 0"),
        ({"repeats": 2}, "give weights, bytes or tokens"),
    ],
)
def test_settings_that_do_not_fit(mix: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MixConfig(**mix)
