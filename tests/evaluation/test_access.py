"""Openings of the sealed split: counted before it is read, whatever becomes of the test."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from gristmill.artifacts import read_json, write_json
from gristmill.data.document import Document, write_documents
from gristmill.errors import StorageError
from gristmill.evaluation.access import open_sealed

KILLED = """
import os, signal, sys
from pathlib import Path
from gristmill.evaluation.access import open_sealed
split, out = map(Path, sys.argv[1:])
open_sealed(split, out, split.parent.glob("evaluate-*"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def write_split(folder: Path, ids: str, digest: str | None) -> Path:
    """Write a split's folder with test documents of these ids."""
    (folder / "test").mkdir(parents=True)
    rows = [Document(i, "s", f"{i}.py", "a", "l", "w", 1, 0, 0, "utf-8", "x\n") for i in ids]
    write_documents(folder / "test" / "documents.parquet", rows)
    if digest is not None:
        write_json(folder / "manifest.json", {"digest": digest})
    return folder


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return write_split(tmp_path / "split-1", "ab", "d1")


def opened(split: Path, name: str) -> int:
    out = split.with_name(name)
    out.mkdir(exist_ok=True)
    return open_sealed(split, out, split.parent.glob("evaluate-*"))


def finish(split: Path, name: str, key: str, digest: str = "d1") -> None:
    folder = split.with_name(name)
    folder.mkdir(exist_ok=True)
    manifest = {"key": key, "begun": f"2026-{key}", "summary": "done"}
    write_json(folder / "manifest.json", {**manifest, "depends": {"inputs": {"split": digest}}})


def test_a_killed_test_counts(split: Path) -> None:
    out = split.with_name("evaluate-a.partial")
    out.mkdir()
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, str(split), str(out)], check=False)
        assert done.returncode == -signal.SIGKILL
    assert opened(split, "evaluate-a.partial") == 3  # the same test again
    assert opened(split, "evaluate-b.partial") == 4  # a test of another model
    (row,) = read_json(split.with_name("evaluate-b.partial") / "access.json")["earlier"]
    assert row == {"key": "a", "begun": None, "summary": "not finished", "times": 3}


def test_finished_tests_of_this_split_count_and_no_others(split: Path) -> None:
    for name, key in (("evaluate-z", "1"), ("evaluate-y", "2")):
        opened(split, name)
        finish(split, name, key)
    finish(split, "evaluate-before-counts-were-kept", "0")
    finish(split, "evaluate-other", "3", digest="d2")
    write_json(split.with_name("evaluate-other") / "access.json", {"documents": "d2", "here": 5})
    assert opened(split, "evaluate-x.partial") == 4
    record = read_json(split.with_name("evaluate-x.partial") / "access.json")
    assert [row["key"] for row in record["earlier"]] == ["0", "1", "2"]
    assert (record["split"], record["here"], record["opened"]) == ("d1", 1, 4)


def test_the_same_files_in_another_split_folder_count(split: Path) -> None:
    """`run`, then `run --minutes 30`: another vocabulary, the same test files, a second look."""
    assert opened(split, "evaluate-a") == 1
    finish(split, "evaluate-a", "1")
    again = write_split(split.with_name("split-2"), "ba", "d2")  # in whatever order
    assert opened(again, "evaluate-b.partial") == 2
    fresh = write_split(split.with_name("split-3"), "abc", "d3")
    assert opened(fresh, "evaluate-c.partial") == 1


def test_a_split_without_manifest_counts_its_own(tmp_path: Path) -> None:
    split = write_split(tmp_path / "split", "ab", None)
    assert [opened(split, "evaluate-a") for _ in range(2)] == [1, 2]


def test_what_cannot_be_counted_is_not_opened(split: Path) -> None:
    out = split.with_name("evaluate-a.partial")
    (out / "access.json").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write .*access\.json"):
        open_sealed(split, out, [])


def test_the_folder_of_the_test_outlives_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("pydantic")
    from gristmill.pipeline import find_stage
    from gristmill.runs import Store

    store = Store(tmp_path)
    store.create()
    stage = find_stage("test")
    out = store.begin(stage.name, "key", stage.resumable)
    write_json(out / "access.json", {})
    assert (store.begin(stage.name, "key", stage.resumable) / "access.json").is_file()
