"""Splitting: groups stay whole, places do not move, time runs forward, little data is told."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("rensa")
pytest.importorskip("pydantic")

from hypothesis import assume, given
from hypothesis import strategies as st

from gristmill.data.document import Document
from gristmill.data.settings import SplitConfig
from gristmill.data.splitting import DAY, LEFT_OUT, SPLITS, TEST, TRAIN, VAL, assign, package_of
from gristmill.errors import DataError

SEEDS = st.integers(0, 2**63)


def document(path: str, **more: Any) -> Document:
    facts = {"source": "s", "area": path.split("/")[0] if "/" in path else ".", "modified": 0}
    facts |= {"text": f"text of {path}\n" * 5, "cluster": -1, **more}
    return Document(
        id=facts.pop("id", hashlib.sha256(path.encode()).hexdigest()), path=path, licence="MIT",
        why="test", bytes=10, retrieved_at=0, encoding="utf-8", **facts,
    )  # fmt: skip


def config(**more: Any) -> SplitConfig:
    return SplitConfig(**{"min_bytes": 1, **more})


def files(n: int, **more: Any) -> list[Document]:
    return [document(f"p{i % 7}/f{i}.py", **more) for i in range(n)]


def splits(documents: list[Document], settings: SplitConfig, seed: int = 1) -> list[str]:
    return [a.split for a in assign(documents, settings, seed, [d.area for d in documents])]


def test_shares_are_about_as_asked() -> None:
    counts = Counter(splits(files(4000), config(val=0.2, test=0.1)))
    assert counts[TEST] == pytest.approx(400, abs=4 * 19)
    assert counts[VAL] == pytest.approx(800, abs=4 * 26)
    assert counts.total() == 4000


@given(SEEDS, st.integers(60, 200), st.integers(1, 100))
def test_documents_that_are_added_move_nobody(seed: int, n: int, more: int) -> None:
    settings = config()
    before = splits(files(n), settings, seed)
    assume(min(Counter(before).values()) > 1)  # a split of one may owe it to being empty otherwise
    assert splits(files(n + more), settings, seed)[:n] == before
    assert splits(files(n)[::-1], settings, seed)[::-1] == before


@given(
    SEEDS,
    st.lists(st.integers(-1, 12), min_size=12, max_size=60),
    st.sampled_from(["cluster", "file", "package", "time"]),
    st.sampled_from(["none", "area"]),
)
def test_groups_are_never_divided(seed: int, cluster: list[int], by: str, stratify: str) -> None:
    documents = [
        document(f"p{i % 9}/f{i % 20}.py", cluster=c, source="ab"[i // 30], modified=i % 15)
        for i, c in enumerate(cluster)
    ]
    stratify = "none" if by == "time" else stratify
    settings = config(by=by, stratify=stratify, val=0.2, test=0.2)
    try:
        assigned = assign(documents, settings, seed, [d.area for d in documents])
    except DataError:  # all in a few groups
        return
    homes: dict[Any, set[str]] = {}
    for own, a in zip(documents, assigned, strict=True):
        keys: list[Any] = [a.group, ("id", own.id)]
        keys += [own.cluster] if own.cluster >= 0 else []
        keys += [("path", own.path)] if by == "file" else []
        keys += [(own.source, own.area)] if by == "package" else []
        for key in keys:
            homes.setdefault(key, set()).add(a.split)
    assert all(len(found - {LEFT_OUT}) <= 1 for found in homes.values())
    assert by == "time" or all(a.split != LEFT_OUT for a in assigned)


@given(SEEDS, st.integers(0, 5), st.lists(st.integers(0, 40), min_size=20, max_size=80))
def test_time_runs_forward(seed: int, gap: int, days: list[int]) -> None:
    documents = [
        document(f"p/f{i}.py", modified=day * DAY, cluster=i // 2 if i < 10 else -1)
        for i, day in enumerate(days)
    ]
    try:
        assigned = assign(documents, config(by="time", gap=float(gap), val=0.2, test=0.2), seed)
    except DataError:
        return
    times: dict[str, list[int]] = {split: [] for split in (*SPLITS, LEFT_OUT)}
    for own, a in zip(documents, assigned, strict=True):
        times[a.split].append(own.modified)
        assert a.split != LEFT_OUT or "within" in a.reason or "one group" in a.reason
    assert max(times[TRAIN]) + gap * DAY < min(times[VAL])
    assert max(times[VAL]) + gap * DAY < min(times[TEST])


def test_time_takes_the_newest() -> None:
    documents = [document(f"p/f{i}.py", modified=i) for i in range(100)]
    found = splits(documents, config(by="time", val=0.1, test=0.2))
    assert found == [TRAIN] * 70 + [VAL] * 10 + [TEST] * 20
    with pytest.raises(DataError, match="files of at least 3 times"):
        splits(files(50), config(by="time"))


@given(SEEDS, st.lists(st.sampled_from("abcd"), min_size=80, max_size=300))
def test_strata_keep_their_shares(seed: int, areas: list[str]) -> None:
    documents = [document(f"{area}/f{i}.py") for i, area in enumerate(areas)]
    found = splits(documents, config(stratify="area", val=0.2, test=0.1), seed)
    total = Counter(areas)
    for split, share in ((TEST, 0.1), (VAL, 0.2), (TRAIN, 0.7)):
        part = Counter(area for area, s in zip(areas, found, strict=True) if s == split)
        assert all(abs(part[area] - share * total[area]) <= 1 for area in total)


def test_tiny_strata_reach_every_split() -> None:
    documents = [document(f"a{i}/f.py") for i in range(2000)]  # one file each
    counts = Counter(splits(documents, config(stratify="area")))
    assert counts[TEST] == pytest.approx(200, abs=55)
    assert counts[VAL] == pytest.approx(200, abs=55)


@given(SEEDS, st.integers(3, 12))
def test_a_few_files_still_give_three_splits(seed: int, n: int) -> None:
    counts = Counter(splits(files(n), config(), seed))
    assert all(counts[split] >= 1 for split in SPLITS)


def test_package() -> None:
    assert package_of(document("json/decoder.py")) == "json"
    assert package_of(document("ast.py")) == "ast"


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_files(n: int) -> None:
    with pytest.raises(DataError, match=rf"{n} files in {n} groups.*at least 1 each"):
        splits(files(n), config())


def test_one_package_cannot_be_split() -> None:
    own = [document(f"only/f{i}.py") for i in range(50)]
    with pytest.raises(DataError, match=r"1 groups \(split.by = 'package'\)"):
        splits(own, config(by="package"))


def test_too_little_text() -> None:
    with pytest.raises(DataError, match=r"bytes in train; allowed: at least 20000"):
        splits(files(20), SplitConfig())
