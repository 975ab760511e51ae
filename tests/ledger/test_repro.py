"""`gristmill repro`: the same bits on any number of threads; a planted difference is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gristmill.artifacts import MANIFEST, read_json, sha256_file, write_json
from gristmill.cli import main
from gristmill.errors import ArtifactError, ReproError
from gristmill.ledger import repro, variation


def repeated(run: Path, threads: int | None, first: str | None) -> list[repro.Compared]:
    return list(repro.repeat(run, run.parent, repro.order(run, threads, first)))


def stores(run: Path) -> list[Path]:
    return list(run.parent.glob(".repro-*"))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_sha256_on_any_number_of_threads(finished: Path, threads: int) -> None:
    """All eleven stages on one thread, the second half on two."""
    stages = repeated(finished, threads, None if threads == 1 else "train")
    assert [s.label[:2] for s in stages] == [f"{n:02}" for n in range(1 if threads == 1 else 7, 12)]
    weights = finished / "09_save/model/model.safetensors"
    assert repro.weights(finished) == sha256_file(weights)
    assert not stores(finished)
    apart = {name for stage in stages for name in stage.apart}
    assert {"metrics.jsonl", "time.json", "model.gguf"} <= apart
    assert not any(name.endswith((".safetensors", ".bin", ".parquet")) for name in apart)


def plant(run: Path, label: str, name: str, data: bytes) -> None:
    """Let the run say that it wrote other bytes."""
    path = (run / label).resolve()
    (path / name).write_bytes(data)
    manifest = read_json(path / MANIFEST)
    manifest["outputs"][name]["sha256"] = sha256_file(path / name)
    write_json(path / MANIFEST, manifest)


def test_a_planted_difference_is_named_and_kept(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = bytearray((copied / "09_save/model/model.safetensors").read_bytes())
    weights[-3] ^= 1
    plant(copied, "09_save", "model/model.safetensors", bytes(weights))
    given = ["repro", copied.name, "--from", "save", "--runs", str(copied.parent)]
    assert main(given) == ReproError.exit_code == 4
    said = capsys.readouterr().err
    assert "stage save, file model/model.safetensors: other bytes" in said
    (store,) = stores(copied)
    assert str(store) in said


def test_a_difference_in_a_file_with_times_is_still_found(copied: Path) -> None:
    path = copied / "07_train/metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["tokens_per_second"] = 1.0
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    plant(copied, "07_train", "metrics.jsonl", text.encode())
    assert repeated(copied, None, "train")
    rows[3]["loss"] += 1e-7
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    plant(copied, "07_train", "metrics.jsonl", text.encode())
    with pytest.raises(ReproError, match=r"metrics\.jsonl: /3/loss is .*, again "):
        repeated(copied, None, "train")


def test_changed_sources_are_named(copied: Path, source: Path) -> None:
    file = source / "one/f1.py"
    text, stamp = file.read_text(), file.stat()
    try:
        file.write_text(text.replace("return", "return 1 +"))
        with pytest.raises(ReproError, match=r"stage collect.*woods/one/f1\.py.*--from clean"):
            repeated(copied, None, None)
    finally:
        file.write_text(text)
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def test_what_the_machine_decided_is_given_to_the_second_run(copied: Path) -> None:
    record = read_json(copied / "run.json")
    record["config"]["design"]["steps"] = None
    record["config"]["train"]["dtype"] = "auto"
    write_json(copied / "run.json", record)
    order = repro.order(copied, 3, None)
    design = read_json(copied / "05_design/design.json")
    assert order.config["design"]["steps"] == design["steps"] == 12
    assert order.config["train"]["dtype"] == design["train"]["dtype"]
    assert order.environment["GRISTMILL_THREADS"] == "3"
    assert any("12" in note and "minutes" in note for note in order.notes)
    table = read_json(copied / "07_train" / MANIFEST)["machine"]["table"]
    expected = table if design["train"]["dtype"] == "bf16" else None
    assert order.environment.get("GRISTMILL_ISA") == expected


def test_bad_stage_and_threads(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repro", "--threads", "0", "--runs", str(finished.parent)]) == 2
    assert "1 to 1024" in capsys.readouterr().err
    assert main(["repro", "--from", "trian", "--runs", str(finished.parent)]) == 2
    assert "stages: collect" in capsys.readouterr().err


def test_a_run_that_does_not_end_says_why(copied: Path) -> None:
    order = repro.order(copied, None, "deploy")
    order.config["deploy"]["dtype"] = "f64"
    with pytest.raises(ArtifactError, match=r"(?s)did not end: .*deploy\.dtype"):
        list(repro.repeat(copied, copied.parent, order))
    assert not stores(copied)


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ({"seconds": 1, "steps": 2}, {"seconds": 3, "steps": 2}, ""),
        ({"seconds": 1, "steps": 2}, {"seconds": 1, "steps": 3}, "/steps is 2, again 3"),
        ({"steps": 2}, {"steps": 2, "more": 1}, "/more only in the second"),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 4}]}, "/a/1/b is 2, again 4"),
        ({"a": [1]}, {"a": [1, 2]}, "/a is [1], again [1, 2]"),
    ],
)
def test_first_difference(first: Any, second: Any, found: str, tmp_path: Path) -> None:
    write_json(tmp_path / "1.json", first)
    write_json(tmp_path / "2.json", second)
    paths = (tmp_path / "1.json", tmp_path / "2.json")
    assert variation.difference("train", "time.json", *paths) == found
    assert variation.difference("split", "other.json", *paths) == "other bytes"
