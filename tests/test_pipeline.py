"""Run folders: skipping, sharing, resuming, gates, and every write that can fail."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")

import fake_stages
from fake_stages import CALLS, make

from gristmill import keys
from gristmill.artifacts import (
    list_files,
    read_json,
    sha256_file,
)
from gristmill.errors import ArtifactError, ConfigError, GateError, LockedError, StorageError
from gristmill.pipeline import Options, Run


def run(root: Path, options: Options | None = None, **tables: dict[str, Any]) -> Run:
    CALLS.clear()
    return make(root, options, **tables).run()


def snapshot(folder: Path) -> dict[str, str]:
    """Return the digest of every file of a run, through its links."""
    found = {}
    for label in sorted(folder.iterdir()):
        files = list_files(label) if label.is_dir() else []
        found |= {f"{label.name}/{name}": sha256_file(label / name) for name in files}
    return found


def test_run_again_skips_everything(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert CALLS == ["first", "second", "third"]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    second = run(tmp_path)
    assert CALLS == []
    assert second.folder == first.folder
    assert all(done.skipped for done in second.done)
    after = {p: p.stat().st_mtime_ns for p in before if p.name != ".lock"}
    assert after == {p: t for p, t in before.items() if p.name != ".lock"}


def test_another_value_shares_earlier_stages_and_leaves_the_old_run(tmp_path: Path) -> None:
    old = run(tmp_path)
    seen = snapshot(old.folder)
    new = run(tmp_path, second={"value": 7})
    assert CALLS == ["second", "third"]
    assert new.folder != old.folder
    assert (new.folder / "01_first").resolve() == (old.folder / "01_first").resolve()
    assert (new.folder / "02_second").resolve() != (old.folder / "02_second").resolve()
    assert snapshot(old.folder) == seen
    assert (tmp_path / "latest").resolve() == new.folder.resolve()


def test_edited_source_makes_a_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = run(tmp_path)
    true = keys.source_digests
    edited = {"gristmill.stages.second": "edited"}
    monkeypatch.setattr(
        keys, "source_digests", lambda m: edited if m == "fakestages.second" else true(m)
    )
    new = run(tmp_path)
    assert CALLS == ["second"]  # its output is the same, so what follows is shared
    assert new.folder != old.folder


def test_seed_is_part_of_every_key(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, project={"seed": 2})
    assert CALLS == ["first", "second", "third"]


def test_manifest_tells_where_everything_came_from(tmp_path: Path) -> None:
    folder = run(tmp_path).folder
    manifest = read_json(folder / "02_second" / "manifest.json")
    before = read_json(folder / "01_first" / "manifest.json")
    assert manifest["depends"]["inputs"] == {"first": before["digest"]}
    assert manifest["outputs"]["state.json"]["sha256"] == sha256_file(
        folder / "02_second" / "state.json"
    )
    assert manifest["depends"]["seed"] == 1
    assert manifest["energy"]["why"]
    assert manifest["machine"]["cores"] >= 1
    assert before["outputs"]["objects/a"]["bytes"] == 1000


def test_gate_stops_with_number_bar_and_file(tmp_path: Path) -> None:
    with pytest.raises(GateError) as caught:
        run(tmp_path, third={"bar": 99_999})
    assert caught.value.exit_code == 3
    assert "bar 99999" in str(caught.value)
    assert "metrics.json" in str(caught.value)
    with pytest.raises(GateError):  # a done stage that failed is not skipped over
        run(tmp_path, third={"bar": 99_999})
    assert CALLS == []
    recorded = run(tmp_path, third={"bar": 99_999}, project={"gates": "record"})
    assert CALLS == []
    assert read_json(recorded.folder / "run.json")["stages"]["03_third"]["passed"] is False


def test_only_needs_what_is_before_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--until second"):
        run(tmp_path, Options(only="second"))
    run(tmp_path, Options(only="first"))
    run(tmp_path, Options(only="second"))
    assert CALLS == ["second"]
    run(tmp_path, Options(until="third"))
    assert CALLS == ["third"]
    with pytest.raises(ConfigError, match="stages: first, second, third"):
        run(tmp_path, Options(only="fourth"))


@pytest.mark.parametrize("change", ["edit", "same size", "delete", "add"])
def test_changed_artefact_is_named(tmp_path: Path, change: str) -> None:
    folder = run(tmp_path).folder / "01_first"
    file = folder / "number.json"
    if change == "edit":
        file.write_text("12345")
    elif change == "same size":
        file.write_text("2\n")
    elif change == "delete":
        file.unlink()
    else:
        (folder / "new.json").write_text("1")
    with pytest.raises(ArtifactError, match="new.json" if change == "add" else "number.json"):
        run(tmp_path)


def test_full_verification_sees_what_the_quick_one_trusts(tmp_path: Path) -> None:
    file = run(tmp_path).folder / "01_first" / "number.json"
    status = file.stat()
    file.write_text("2\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    run(tmp_path)
    with pytest.raises(ArtifactError, match="sha256"):
        run(tmp_path, Options(verify=True))


def test_copied_runs_are_still_done(tmp_path: Path) -> None:
    run(tmp_path / "a")
    subprocess.run(["cp", "-r", str(tmp_path / "a"), str(tmp_path / "b")], check=True)
    run(tmp_path / "b")
    assert CALLS == []


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    """Where a stage is made again with other bytes, the old run keeps its links."""
    old = run(tmp_path)
    second = (old.folder / "02_second").resolve()
    kept = second.with_name("second-kept")
    second.rename(kept)
    (old.folder / "02_second").unlink()
    (old.folder / "02_second").symlink_to(kept)
    new = run(tmp_path)
    assert new.folder.name == f"{old.folder.name}-2"
    assert (old.folder / "02_second").resolve() == kept


def test_second_process_is_refused(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    pipeline.store.create()
    with pipeline.store.lock(), pytest.raises(LockedError, match=str(os.getpid())):
        run(tmp_path)
    run(tmp_path)


def test_killed_runs_resume_to_the_same_bytes(tmp_path: Path) -> None:
    whole = snapshot(run(tmp_path / "whole").folder)
    rng = random.Random(5)
    script = Path(fake_stages.__file__)
    root = tmp_path / "killed"
    kills = 0
    for _ in range(6):
        before = _state(root)
        child = subprocess.Popen([sys.executable, str(script), str(root), "slow"])
        deadline = time.monotonic() + 20
        while child.poll() is None and _state(root) == before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
    assert kills >= 3
    resumed = run(root)
    assert snapshot(resumed.folder) == whole
    assert not list(root.glob(".stages/*.partial"))


def _state(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in root.glob(".stages/second-*/state.json")]


class FullDisk:
    """Lets a number of writing calls through and refuses all that follow."""

    CALLS = (
        "open",
        "write",
        "pwrite",
        "ftruncate",
        "fsync",
        "mkdir",
        "symlink",
        "rename",
        "replace",
    )

    def __init__(self, allowed: int, code: int) -> None:
        self.left, self.code = allowed, code
        self.refused: list[str] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._refusing(name, getattr(os, name)))

    def _refusing(self, name: str, true: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            reads = name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR)
            self.left -= not reads
            if self.left < 0 and not reads:
                self.refused.append(name)
                raise OSError(self.code, os.strerror(self.code))
            return true(*args, **options)

        return call


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_disk_full_at_every_write(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever call fails: a message, nothing half done, and the next run completes."""
    monkeypatch.setattr(fake_stages, "STEPS", 3)  # each step writes in the same way
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # counted below, but not waited for
    whole = snapshot(run(tmp_path / "whole").folder)
    kinds, finished = set(), False
    for allowed in itertools.count():
        root, disk = tmp_path / f"{allowed}", FullDisk(allowed, code)
        with pytest.MonkeyPatch.context() as patch:
            disk.install(patch)
            try:
                run(root)
                finished = True
            except StorageError as error:
                assert os.strerror(code) in str(error)
                assert "again" in str(error) or "--runs" in str(error)
        assert snapshot(run(root).folder) == whole
        assert not [p for p in root.rglob(".*") if p.name not in (".stages", ".lock")]
        if finished:
            break
        kinds.add(disk.refused[0])
    assert kinds == set(FullDisk.CALLS)


def test_the_report_follows_the_run_also_where_all_is_skipped(tmp_path: Path) -> None:
    """What another run did meanwhile is new in this one."""
    shown: list[list[str]] = []

    def report(folder: Path) -> None:
        shown.append(sorted(read_json(folder / "run.json")["stages"]))

    run(tmp_path, Options(until="first", on_report=report))
    assert shown == [["01_first"]]
    run(tmp_path, project={"name": "another"})
    run(tmp_path, Options(on_report=report))
    assert CALLS == []
    assert shown[-1] == ["01_first", "02_second", "03_third"]
    seen = len(shown)
    run(tmp_path, Options(on_report=report))
    assert len(shown) == seen


def test_unwritable_folder(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StorageError, match="file"):
        run(blocked / "runs")


def test_stage_reads_only_its_own_and_earlier_sections(tmp_path: Path) -> None:
    pipeline = make(tmp_path)
    stages = {stage.name: stage for stage in pipeline.stages}

    def early(ctx: Any) -> Any:
        return ctx.config.third.bar

    sys.modules[stages["first"].module].run = early  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="not part of its key"):
        pipeline.run()


def test_imports_are_followed_from_the_source(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import gristmill.d\n"
        "def f():\n    import gristmill.b\n"
    )
    (tmp_path / "b.py").write_text("from gristmill.c import x\nraise SystemExit\n")
    (tmp_path / "c.py").write_text("x = 1\n")
    (tmp_path / "d.py").write_text("")
    found = keys.source_digests("gristmill.a", tmp_path)
    assert sorted(found) == ["gristmill.a", "gristmill.b", "gristmill.c"]
    (tmp_path / "c.py").write_text("x = 22\n")
    again = keys.source_digests("gristmill.a", tmp_path)
    assert {name for name in found if found[name] != again[name]} == {"gristmill.c"}
