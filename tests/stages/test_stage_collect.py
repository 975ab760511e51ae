"""Stage collect: its files, its gate, its report."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

from gristmill.artifacts import StageContext, describe_files, digest_of
from gristmill.data.collect_settings import CollectConfig, FilesSource, MixConfig
from gristmill.data.document import read_documents
from gristmill.data.store import Store
from gristmill.errors import StorageError
from gristmill.stages import collect


def context(root: Path, out: Path, **options: Any) -> StageContext:
    source = FilesSource(use="files", path=str(root), licence="MIT", why="test", git=False)
    out.mkdir()
    config = SimpleNamespace(collect=CollectConfig(source=[source], **options))
    return StageContext("collect", out, {}, cast(Any, config), 42)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    (folder / "pkg").mkdir(parents=True)
    for number in range(20):
        (folder / "pkg" / f"{number:02}.py").write_text(f"x = {number % 18}\n")
    (folder / "logo.png").write_bytes(b"\x89PNG\0")
    return folder


def test_files_gate_and_report(root: Path, tmp_path: Path) -> None:
    ctx = context(root, tmp_path / "out")
    result = collect.run(ctx)
    assert len(result.summary) <= 60
    assert result.summary.startswith("20 files, 0.0 MB; 1 left out")
    assert [(g.value, g.bar, g.passed) for g in result.gates] == [(0, 0, True)]
    names = {p.name for p in ctx.out.iterdir()}
    assert names == {"raw", "documents.parquet", "sources.json", "mixture.json", "quality.json"}
    documents = read_documents(ctx.out / "documents.parquet", cluster=False)
    store = Store(ctx.out / "raw")
    assert [store.get(d.id).decode() for d in documents] == [d.text for d in documents]
    assert len(store.digests()) == 18
    quality = json.loads((ctx.out / "quality.json").read_text())
    assert quality["duplicates"]["files"] == 4
    assert quality["skipped"]["rows"] == [
        {"source": "src", "path": "logo.png", "reason": "binary", "faulty": False}
    ]
    sources = json.loads((ctx.out / "sources.json").read_text())
    assert [(s["name"], s["licence"], s["why"]) for s in sources] == [("src", "MIT", "test")]
    assert {"what", "why", "numbers", "plots", "tables"} == set(result.report)
    series = result.report["plots"][0]["series"][0]
    assert len(series["x"]) == len(series["y"])
    for table in result.report["tables"]:
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    json.dumps(result.report, allow_nan=False)


def test_the_same_files_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        ctx = context(root, tmp_path / name)
        collect.run(ctx)
        digests.append(digest_of(describe_files(ctx.out)))
    assert digests[0] == digests[1]


def test_fingerprint_is_of_the_sources(root: Path, tmp_path: Path) -> None:
    ctx = context(root, tmp_path / "out")
    before = collect.fingerprint(ctx.config)
    json.dumps(before)
    (root / "new.py").write_text("x")
    assert collect.fingerprint(ctx.config) != before


def test_a_schema_violation_fails_the_gate(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "digests", lambda self: [])
    result = collect.run(context(root, tmp_path / "out"))
    assert [(g.value, g.passed) for g in result.gates] == [(20, False)]


@pytest.mark.parametrize("name", ["documents.parquet", "quality.json", "sources.json"])
def test_a_folder_in_place_of_a_file_is_a_storage_error(
    root: Path, tmp_path: Path, name: str
) -> None:
    ctx = context(root, tmp_path / "out")
    (ctx.out / name).mkdir()
    with pytest.raises(StorageError, match=f"cannot write .*{name}"):
        collect.run(ctx)


def test_a_full_disk_under_the_raw_store_is_a_storage_error(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context(root, tmp_path / "out")

    def write(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write)
        with pytest.raises(StorageError, match=r"cannot write .*/raw/.*No space left.*free some"):
            collect.run(ctx)
    assert Store(ctx.out / "raw").digests() == []
    assert collect.run(ctx).gates[0].passed


def test_a_mixture_that_falls_short_fails_its_gate(root: Path, tmp_path: Path) -> None:
    mix = MixConfig(weights={"src": 1.0}, bytes=400)
    ctx = context(root, tmp_path / "out", mix=mix)
    result = collect.run(ctx)
    there = sum(path.stat().st_size for path in (root / "pkg").iterdir())
    name, short = "share that a group lacks of what was asked", 1 - there / 400
    assert [(g.name, g.value, g.bar, g.passed) for g in result.gates[1:]] == [
        (name, pytest.approx(short), 0.02, False)
    ]
    mixture = json.loads((ctx.out / "mixture.json").read_text())
    assert mixture["groups"][0]["bytes"] == there
    titles = [table["title"] for table in result.report["tables"]]
    assert "Mixture (all in mixture.json)" in titles
    asked, got = (series["y"] for series in result.report["plots"][1]["series"])
    assert (asked, got) == ([0.0004], [there / 1e6])
    done = collect.run(context(root, tmp_path / "enough", mix=mix.model_copy(update={"bytes": 90})))
    assert done.gates[1].passed
