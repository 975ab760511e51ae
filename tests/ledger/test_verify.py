"""`gristmill verify`: a sound run passes; whatever is changed is found and named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gristmill import registry
from gristmill.artifacts import MANIFEST, read_json, sha256_file, write_json
from gristmill.cli import main
from gristmill.errors import ArtifactError
from gristmill.ledger.verify import Check, verify


def failed(target: Path, root: Path) -> list[Check]:
    return [check for check in verify(target, root) if not check.passed]


def flip(path: Path, at: int) -> None:
    """Change one byte; size and time stay, so that only reading the file can tell."""
    stamp = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def test_a_sound_run_passes(finished: Path) -> None:
    checks = list(verify(finished, finished.parent))
    assert not [check for check in checks if not check.passed]
    assert {check.what for check in checks} >= {
        "files", "chain", "reloaded in a fresh process", "tensors and metadata",
        "self-test in a fresh process", "lineage is this run's",
    }  # fmt: skip
    assert len([check for check in checks if check.what == "files"]) == 11


@pytest.mark.parametrize(
    "name", ["01_collect/sources.json", "04_split/train/tokens.bin", "07_train/metrics.jsonl"]
)
def test_one_changed_byte_is_named(copied: Path, name: str) -> None:
    flip(copied / name, 40)
    first = failed(copied, copied.parent)[0]
    assert first.file == str((copied / name).resolve()) and "sha256 differs" in first.said
    assert "gristmill run" in first.advice


def test_a_changed_weight_fails_the_digest_the_reload_and_the_file(copied: Path) -> None:
    flip(copied / "09_save/model/model.safetensors", -3)
    flip(copied / "11_deploy/model.gguf", -3)
    found = {(check.part, check.what) for check in failed(copied, copied.parent)}
    assert found >= {
        ("09_save", "files"), ("09_save", "reloaded in a fresh process"),
        ("11_deploy", "files"), ("model.gguf", "tensors and metadata"),
    }  # fmt: skip


def test_lost_added_and_unreadable_files(copied: Path) -> None:
    (copied / "02_clean/removed.parquet").unlink()
    (copied / "03_annotate/a b.txt").write_text("added")
    (copied / "05_design" / MANIFEST).write_text("{")
    found = {check.part: check for check in failed(copied, copied.parent)}
    assert "missing" in found["02_clean"].said
    assert found["03_annotate"].file.endswith("a b.txt")
    assert found["05_design"].what == "manifest"


def test_a_manifest_that_was_rewritten_to_fit_breaks_the_chain(copied: Path) -> None:
    """Who changes a file and its manifest still contradicts the digest the next stage read."""
    path = copied / "04_split" / MANIFEST
    manifest = read_json(path)
    manifest["digest"] = "0" * 64
    write_json(path, manifest)
    found = {check.part: check.said for check in failed(copied, copied.parent)}
    assert "run.json names" in found["04_split"]
    assert "of split" in found["07_train"] and "of split" in found["11_deploy"]


def test_a_stage_swapped_for_another_is_found(copied: Path) -> None:
    record = read_json(copied / "run.json")
    record["stages"]["09_save"]["key"] = "0" * 16
    write_json(copied / "run.json", record)
    assert [check.part for check in failed(copied, copied.parent)] == ["09_save"]


def test_a_lone_file_and_a_folder(finished: Path, copied: Path, tmp_path: Path) -> None:
    path = finished / "11_deploy/model.gguf"
    said = {check.what: check.said for check in verify(path, finished.parent)}
    assert said["lineage"].endswith(finished.name)
    lone = tmp_path / "lone.gguf"
    lone.write_bytes(path.read_bytes())
    assert not failed(lone, tmp_path)
    flip(lone, -1)
    assert next(c.what for c in failed(lone, tmp_path)) == "tensors and metadata"
    assert not failed(finished / "09_save/model", tmp_path)
    flip(copied / "09_save/model/model.safetensors", -3)
    assert [c.what for c in failed(copied / "09_save/model", tmp_path)] == ["manifest"]
    with pytest.raises(ArtifactError, match=r"run\.json"):
        list(verify(tmp_path, tmp_path))


def test_a_promoted_file_that_changed(copied: Path) -> None:
    root, path = copied.parent, copied / "11_deploy/model.gguf"
    registry.append(root, run=copied.name, model=path, sha256=sha256_file(path), reason="test")
    (check,) = [check for check in verify(copied, root) if check.part == "registry.jsonl"]
    assert check.passed and copied.name in check.said
    flip(path, -1)
    (check,) = [check for check in failed(copied, root) if check.part == "registry.jsonl"]
    assert "changed on disk" in check.said
    log = root / registry.REGISTRY
    log.write_text(log.read_text().replace("test", "rest"))
    (check,) = [check for check in failed(copied, root) if check.part == "registry.jsonl"]
    assert "edited" in check.said


def test_the_verb(finished: Path, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--runs", str(finished.parent)]) == 0
    assert "DAMAGED" not in capsys.readouterr().out
    flip(copied / "11_deploy/selftest.json", 5)
    assert main(["verify", copied.name, "--json", "--runs", str(copied.parent)]) == 2
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts["passed"] is False and not all(check["passed"] for check in facts["checks"])
    assert "selftest.json" in err and "restore it" in err
