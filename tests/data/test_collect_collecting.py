"""Collect as a whole: what comes out, what faults do; the same files give the same rows."""

from __future__ import annotations

import bz2
import errno
import gzip
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data import collecting, quality
from gristmill.data.collect_settings import CollectConfig, FilesSource, StdlibSource
from gristmill.data.collecting import Collected, collect
from gristmill.data.document import write_documents
from gristmill.data.store import Store
from gristmill.errors import ArtifactError, DataError, StorageError


def config(*paths: Path, limit: int = 0, max_faulty: float = 0.05, **options: Any) -> CollectConfig:
    source = [
        FilesSource(use="files", path=str(p), licence="MIT", why="test", git=False, **options)
        for p in paths
    ]
    return CollectConfig(source=list(source), limit=limit, max_faulty=max_faulty)


def fill(root: Path, count: int = 40) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / f"{number:02}.py").write_text(f"x = {number}\n")


def gather(cfg: CollectConfig, tmp_path: Path, seed: int = 1) -> Collected:
    return collect(cfg, Store(tmp_path / "raw"), seed)


def test_a_document_has_its_origin(tmp_path: Path) -> None:
    root = tmp_path / "src"
    fill(root / "pkg" / "sub", 1)
    (root / "top.py.bz2").write_bytes(bz2.compress("é = 1\n".encode()))
    os.utime(root / "top.py.bz2", (100, 100))
    os.utime(root / "pkg/sub/00.py", (200, 200))
    got = gather(config(root), tmp_path)
    first, second = got.documents
    assert (first.path, first.area, first.modified) == ("pkg/sub/00.py", "pkg", 200)
    assert (second.path, second.area, second.modified) == ("top.py.bz2", ".", 100)
    assert second.text == "é = 1\n"
    assert second.encoding == "utf-8"
    assert second.bytes == (root / "top.py.bz2").stat().st_size
    assert first.retrieved_at == second.retrieved_at == 200
    assert (first.licence, first.why, first.source) == ("MIT", "test", "src")
    raw = Store(tmp_path / "raw").get(second.id)
    assert raw == (root / "top.py.bz2").read_bytes()
    assert got.sources[0]["files"] == 2
    assert got.sources[0]["licence"] == "MIT"


def test_every_file_is_a_document_or_skipped(tmp_path: Path) -> None:
    root = tmp_path / "src"
    fill(root)
    (root / "bin").write_bytes(b"\0\1")
    (root / "empty.py").touch()
    (root / "latin.py").write_bytes(b"# \xe9\n")
    (root / "big.py").write_text("x" * 5000)
    got = gather(config(root, max_bytes=4000), tmp_path)
    names = {d.path for d in got.documents} | {s.path for s in got.skipped}
    assert names == set(os.listdir(root))
    assert {s.path: s.reason for s in got.skipped} == {
        "big.py": "larger than 4000 bytes",
        "bin": "binary",
        "empty.py": "empty",
        "latin.py": "not text in utf-8 (byte 2)",
    }
    assert [s.path for s in got.skipped if s.fault] == ["latin.py"]


def test_too_many_faults_stop(tmp_path: Path) -> None:
    root = tmp_path / "src"
    fill(root, 9)
    (root / "cut.py.gz").write_bytes(gzip.compress(b"x = 1\n" * 99)[:-5])
    with pytest.raises(DataError) as caught:
        gather(config(root), tmp_path)
    for part in ("1 of 10 files is faulty", "0.05", "cut.py.gz (truncated", "max_faulty"):
        assert part in str(caught.value)
    got = gather(config(root, max_faulty=0.1), tmp_path)
    assert len(got.documents) == 9


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.py.gz", gzip.compress(b"x = 1")[:-4], "truncated"),
        ("a.py", b"\xff\xfe\xfd", "not text"),
        ("a.py", b"caf\xe9", r"not text in utf-8 \(byte 3\)"),
        ("a.py", b"", "empty"),
        ("a.png", b"\x89PNG\0", "binary"),
    ],
)
def test_a_source_without_text(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    root = tmp_path / "src"
    root.mkdir()
    (root / name).write_bytes(content)
    with pytest.raises(DataError, match=f"no text in 1 file of.*{said}"):
        gather(config(root), tmp_path)
    with pytest.raises(DataError, match=f"no text in 1 file of.*{said}"):
        gather(config(root / name), tmp_path)


def test_an_unreadable_file_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "src"
    fill(root)
    real = open

    def refuse(file: Any, *rest: Any, **options: Any) -> Any:
        if str(file).endswith("03.py"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return real(file, *rest, **options)

    monkeypatch.setattr("builtins.open", refuse)
    got = gather(config(root), tmp_path)
    assert len(got.documents) == 39
    assert [(s.path, s.reason, s.fault) for s in got.skipped] == [
        ("03.py", "unreadable: Permission denied", True)
    ]


def test_a_file_that_vanishes_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "src"
    fill(root)
    real = collecting.list_sources

    def late(*given: Any) -> Any:
        found = real(*given)
        (root / "05.py").unlink()
        return found

    monkeypatch.setattr(collecting, "list_sources", late)
    got = gather(config(root), tmp_path)
    assert [s.reason for s in got.skipped] == ["unreadable: No such file or directory"]


def test_a_full_disk_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "src"
    fill(root)
    true, left = Path.write_bytes, [7]

    def write(path: Path, data: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return true(path, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(StorageError, match=r"cannot write .*/raw/.*No space left"):
        gather(config(root), tmp_path)
    assert len(Store(tmp_path / "raw").digests()) == 7


def test_limit_is_a_seeded_sample_that_grows(tmp_path: Path) -> None:
    root = tmp_path / "src"
    fill(root)

    def paths(limit: int, seed: int) -> list[str]:
        return [d.path for d in gather(config(root, limit=limit), tmp_path, seed).documents]

    few, more = paths(10, 1), paths(20, 1)
    assert len(few) == 10
    assert set(few) < set(more)
    assert few == sorted(few)
    assert few != paths(10, 2)
    assert few != sorted(p.name for p in root.iterdir())[:10]
    assert paths(99, 1) == paths(0, 1)
    got = gather(config(root, limit=10), tmp_path)
    assert {s.reason for s in got.skipped} == {"beyond limit = 10"}
    assert len(got.skipped) == 30


def test_limit_counts_documents_not_files(tmp_path: Path) -> None:
    root = tmp_path / "src"
    fill(root, 5)
    for number in range(50):
        (root / f"{number}.bin").write_bytes(b"\0")
    assert len(gather(config(root, limit=5), tmp_path).documents) == 5


def test_the_same_files_give_the_same_rows_and_bytes(tmp_path: Path) -> None:
    root = tmp_path / "src"
    fill(root)
    results = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        got = collect(config(root), Store(folder / "raw"), 1)
        write_documents(folder / "d.parquet", got.documents, cluster=False)
        results.append((got, (folder / "d.parquet").read_bytes()))
    assert results[0] == results[1]


def test_several_sources(tmp_path: Path) -> None:
    fill(tmp_path / "a" / "x", 2)
    fill(tmp_path / "b", 2)
    got = gather(config(tmp_path / "a", tmp_path / "b"), tmp_path)
    assert [(d.source, d.path, d.area) for d in got.documents] == [
        ("a", "x/00.py", "a/."),
        ("a", "x/01.py", "a/."),
        ("b", "00.py", "b/."),
        ("b", "01.py", "b/."),
    ]
    assert len(Store(tmp_path / "raw").digests()) == 2
    assert quality.exact_duplicates(got.documents)["files"] == 4


def test_fingerprint_sees_changes(tmp_path: Path) -> None:
    fill(tmp_path / "src")
    cfg = config(tmp_path / "src")
    before = collecting.fingerprint(cfg)
    assert collecting.fingerprint(cfg) == before
    (tmp_path / "src" / "00.py").write_text("y = 12345\n")
    changed = collecting.fingerprint(cfg)
    assert changed != before
    (tmp_path / "src" / "new.py").write_text("")
    assert collecting.fingerprint(cfg) not in (before, changed)
    with pytest.raises(DataError, match="No such file"):
        collecting.fingerprint(config(tmp_path / "absent"))


@given(st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=30), min_size=1))
@settings(max_examples=30)
def test_any_files(tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("any")
    root = folder / "src"
    root.mkdir()
    for name, data in content.items():
        (root / f"{name}.py").write_bytes(data)
    try:
        got = gather(config(root, max_faulty=1.0), folder)
    except DataError as error:
        assert "no text" in str(error)
        return
    assert len(got.documents) + len(got.skipped) == len(content)
    table = folder / "d.parquet"
    write_documents(table, got.documents, cluster=False)
    rules = quality.check_schema(table, Store(folder / "raw"))
    assert sum(rule["violations"] for rule in rules) == 0


def test_the_standard_library_is_all_text(tmp_path: Path) -> None:
    source = StdlibSource(use="stdlib", licence="PSF-2.0", why="test")
    got = gather(CollectConfig(source=[source], limit=60), tmp_path)
    assert len(got.documents) == 60
    assert not [row for row in got.skipped if row.fault]


# ---------------------------------------------------------------------- store and quality


def test_the_store_notices_changed_and_missing_bytes(tmp_path: Path) -> None:
    store = Store(tmp_path / "raw")
    digest = store.put(b"abc")
    assert store.put(b"abc") == digest
    assert store.digests() == [digest]
    assert store.get(digest) == b"abc"
    store.path(digest).write_bytes(b"abd")
    with pytest.raises(ArtifactError, match="other bytes"):
        store.get(digest)
    store.path(digest).unlink()
    with pytest.raises(ArtifactError, match="run collect again"):
        store.get(digest)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("id", "abc", "id is a sha256"),
        ("path", "/etc/passwd", "path is relative and not empty"),
        ("path", "a/../../b", "path is relative and not empty"),
        ("licence", " ", "licence and why are given"),
        ("bytes", 0, "bytes are positive"),
        ("text", "", "text is not empty"),
        ("modified", 10**12, "times are in order"),
        ("path", "01.py", "source and path are unique"),
        ("id", "0" * 64, "raw bytes are in the store"),
    ],
)
def test_schema_violations_are_found(tmp_path: Path, field: str, value: Any, rule: str) -> None:
    from dataclasses import replace

    fill(tmp_path / "src", 3)
    documents = gather(config(tmp_path / "src"), tmp_path).documents
    changes: dict[str, Any] = {field: value}
    documents[0] = replace(documents[0], **changes)
    table = tmp_path / "d.parquet"
    write_documents(table, documents, cluster=False)
    broken = {
        r["rule"]: r["violations"]
        for r in quality.check_schema(table, Store(tmp_path / "raw"))
        if r["violations"]
    }
    assert rule in broken


def test_the_quality_report_counts(tmp_path: Path) -> None:
    root = tmp_path / "src"
    fill(root, 3)
    (root / "copy.py").write_text("x = 0\n")
    (root / "readme.md.gz").write_bytes(gzip.compress("é".encode() * 3000))
    (root / "empty").touch()
    report = quality.describe(gather(config(root), tmp_path))
    assert report["documents"] == 5
    assert report["characters"] == 4 * 6 + 3000
    assert report["by"]["suffix"] == {".py": 4, ".md": 1}
    assert report["by"]["encoding"] == {"ascii": 4, "utf-8": 1}
    assert sum(report["lengths"]["counts"]) == 5
    assert len(report["lengths"]["counts"]) == len(report["lengths"]["edges"])
    assert report["lengths"]["counts"][0] == 4
    assert report["duplicates"]["examples"] == [["src/00.py", "src/copy.py"]]
    assert report["skipped"]["by_reason"] == {"empty": 1}
    assert report["skipped"]["rows"][0]["path"] == "empty"
