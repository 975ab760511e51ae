"""Atomic files, digests, and the check of finished folders."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import artifacts
from gristmill.errors import ArtifactError, StorageError


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    artifacts.atomic_write(path, b"old")
    artifacts.atomic_write(path, b"new" * 1000)
    assert path.read_bytes() == b"new" * 1000
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "fchmod"])
def test_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    artifacts.atomic_write(path, b"old")

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match=r"No space left.*free some space") as caught:
        artifacts.atomic_write(path, b"new")
    assert caught.value.exit_code == 5
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: true(fd, bytes(data[:7])))
    artifacts.atomic_write(tmp_path / "file", b"0123456789" * 10)
    assert (tmp_path / "file").read_bytes() == b"0123456789" * 10


def test_missing_folder_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="absent"):
        artifacts.atomic_write(tmp_path / "absent" / "file", b"")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_json_round_trip(value: object) -> None:
    finite = json.loads(artifacts.json_text(value))
    assert json.loads(artifacts.json_text(finite)) == finite
    assert artifacts.sha256_json(finite) == artifacts.sha256_json(json.loads(json.dumps(finite)))


def test_json_holds_what_json_can(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    value = {"a": numpy.float32(0.5), "b": numpy.arange(2), 3: float("nan"), "p": Path("x")}
    artifacts.write_json(tmp_path / "v.json", value)
    assert artifacts.read_json(tmp_path / "v.json") == {
        "a": 0.5,
        "b": [0, 1],
        "3": None,
        "p": "x",
    }


def test_key_order_does_not_show() -> None:
    assert artifacts.sha256_json({"a": 1, "b": 2}) == artifacts.sha256_json({"b": 2, "a": 1})
    assert artifacts.sha256_json({"a": 1}) != artifacts.sha256_json({"a": "1"})


def test_unreadable_json(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read"):
        artifacts.read_json(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text('{"a": ')
    with pytest.raises(ArtifactError, match="not JSON"):
        artifacts.read_json(tmp_path / "bad.json")


def test_digest_is_of_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    first = artifacts.digest_of(artifacts.describe_files(tmp_path))
    os.utime(tmp_path / "a", ns=(1, 1))
    assert artifacts.digest_of(artifacts.describe_files(tmp_path)) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert artifacts.digest_of(artifacts.describe_files(tmp_path)) != first


def test_check_names_every_difference(tmp_path: Path) -> None:
    for name in ("same", "edited", "longer", "gone"):
        (tmp_path / name).write_text("text")
    manifest = {"outputs": artifacts.describe_files(tmp_path)}
    assert artifacts.check_files(tmp_path, manifest, full=True) == []
    (tmp_path / "edited").write_text("TEXT")
    (tmp_path / "longer").write_text("text and more")
    (tmp_path / "gone").unlink()
    (tmp_path / "added").write_text("")
    problems = " | ".join(artifacts.check_files(tmp_path, manifest))
    for name in ("edited has other bytes", "longer has 13 bytes", "gone is missing", "added was"):
        assert name in problems
    assert "same" not in problems


def test_context_names_the_missing_stage(tmp_path: Path) -> None:
    ctx = artifacts.StageContext("split", tmp_path, {"clean": tmp_path}, None, 1)  # type: ignore[arg-type]
    assert ctx.input("clean") == tmp_path
    with pytest.raises(ArtifactError, match=r"annotate.*present: clean"):
        ctx.input("annotate")
