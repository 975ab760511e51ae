"""`gristmill forget`: all that holds a file is found; a run without it; deleting asks twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ledger_run
import pytest

from gristmill import registry
from gristmill.artifacts import MANIFEST, read_json, sha256_file, write_json
from gristmill.cli import main
from gristmill.data.document import (
    Removal,
    read_documents,
    read_removals,
    write_documents,
    write_removals,
)
from gristmill.data.table import read_table
from gristmill.errors import ArtifactError, DataError
from gristmill.ledger.forget import affected, blocks, delete, without
from gristmill.ledger.records import Records
from gristmill.pipeline import Options, Pipeline


def split_of(run: Path) -> dict[str, str]:
    return dict(read_table(run / "04_split/split.parquet", ["path", "split"]))


def in_train(run: Path) -> str:
    return next(p for p, s in split_of(run).items() if s == "train" and "copy" not in p)


def test_a_file_with_its_runs_stages_and_model(copied: Path) -> None:
    root, path = copied.parent, in_train(copied)
    model = copied / "11_deploy/model.gguf"
    registry.append(root, run=copied.name, model=model, sha256=sha256_file(model), reason="test")
    found = affected(path, Records(root))
    assert [row.path for row in found.rows] == [path]
    assert [run.name for run in found.runs] == [copied.name]
    assert found.splits[copied.name] == {"train": 1}
    assert {p.name for p in found.stages} == {p.name for p in (root / ".stages").iterdir()}
    text = json.dumps([[b.title, b.rows] for b in blocks(found, Records(root))])
    assert "served by default" in text and "backups" in text


def test_names_folders_paths_on_disk_and_copies(finished: Path, source: Path) -> None:
    records = Records(finished.parent)
    whole = affected("woods", records)
    assert len(whole.rows) == 61 and whole.whole
    folder = affected("one", records)
    assert {row.path.split("/")[0] for row in folder.rows} == {"one"}
    assert affected("woods/one/", records).rows == folder.rows
    assert affected(str(source / "one"), records).rows == folder.rows
    assert affected(str(source), records).rows == whole.rows
    one = affected("one/f1.py", records)
    assert [row.path for row in one.rows] == ["one/f1.py"]
    assert [row.path for row in one.copies] == ["one/copy.py"]
    assert one.splits[finished.name].get("removed") == 1
    with pytest.raises(DataError, match="sources: woods"):
        affected("three", records)


def test_what_was_removed_for_its_likeness_comes_back(copied: Path) -> None:
    """A near-duplicate that clean removed in favour of the file is no longer removed without it."""
    path = in_train(copied)
    file = (copied / "02_clean/removed.parquet").resolve()
    row = Removal(
        "e" * 64, "two/like.py", "woods", "near", "near", f"0.91 to woods/{path}", "< 0.8"
    )
    write_removals(file, [*read_removals(file), row])
    found = affected(path, Records(copied.parent))
    assert (
        "woods/two/like.py",
        f"was removed (0.91 to woods/{path}), and comes back",
    ) in found.alike


def test_a_run_that_began_from_the_model_is_affected(copied: Path) -> None:
    """Its keys name the weights; its own collect has nothing of the file."""
    root, path = copied.parent, in_train(copied)
    weights = sha256_file(copied / "09_save/model/model.safetensors")
    other = root / "other-1"
    shutil.copytree(copied, other, symlinks=True)
    for label in ("01_collect", "06_initialize"):
        target = (copied / label).resolve()
        mine = target.with_name(target.name[:-1] + "X")
        shutil.copytree(target, mine)
        (other / label).unlink()
        (other / label).symlink_to(f"../.stages/{mine.name}")
    manifest = read_json(other / "06_initialize" / MANIFEST)
    manifest["depends"]["world"] = {"model.safetensors": weights}
    write_json((other / "06_initialize").resolve() / MANIFEST, manifest)
    rows = (other / "01_collect").resolve() / "documents.parquet"
    kept = [d for d in read_documents(rows, cluster=False) if d.path != path]
    write_documents(rows, kept, cluster=False)
    found = affected(path, Records(root))
    assert [run.name for run in found.runs] == [copied.name]
    assert [run.name for run in found.derived] == ["other-1"]
    assert (other / "06_initialize").resolve() in found.stages
    assert (other / "01_collect").resolve() not in found.stages


def test_a_run_without_a_file_and_its_copy(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copied.parent
    assert main(["forget", "--source", "one/f1.py", "--run", "--runs", str(root)]) == 0
    said = capsys.readouterr().out
    (new,) = [run for run in Records(root).runs if run.name != copied.name]
    assert f"promote {new.name}" in said
    assert read_json(new.folder / "run.json")["config"]["collect"]["exclude"] == [
        "woods/one/copy.py", "woods/one/f1.py",
    ]  # fmt: skip
    paths = {p for (p,) in read_table(new.folder / "01_collect/documents.parquet", ["path"])}
    assert len(paths) == 59 and not paths & {"one/f1.py", "one/copy.py"}
    assert (copied / "11_deploy/model.gguf").is_file()  # nothing is deleted


def test_a_source_is_dropped_or_excluded(tmp_path: Path) -> None:
    parts: Any = [ledger_run.write_source(tmp_path / name, 40) for name in ("first", "second")]
    for number, path in enumerate(sorted(parts[1].rglob("*.py"))):
        path.write_text(ledger_run.text(1000 + number))
    said = {"use": "files", "licence": "MIT", "why": "test", "git": False}
    sources = [{**said, "path": str(path), "name": path.name} for path in parts]
    run = ledger_run.run(tmp_path / "runs", parts[0], collect={"source": sources})
    found = affected("second", Records(tmp_path / "runs"))
    old, config = without(found)
    assert old.folder == run
    assert [source["name"] for source in config["collect"]["source"]] == ["first"]
    assert config["collect"]["exclude"] == []


def test_the_only_source_cannot_be_forgotten_by_a_new_run(finished: Path) -> None:
    with pytest.raises(DataError, match="only source"):
        without(affected("woods", Records(finished.parent)))


def test_deleting_lists_asks_and_spares_the_promoted(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, path = copied.parent, in_train(copied)
    given = ["forget", "--source", path, "--delete-old", "--runs", str(root)]
    assert main(given) == 0
    assert "nothing was deleted" in capsys.readouterr().out and copied.is_dir()
    model = copied / "11_deploy/model.gguf"
    registry.append(root, run=copied.name, model=model, sha256=sha256_file(model), reason="test")
    assert main([*given, "--yes"]) == ArtifactError.exit_code
    assert "promote a run without" in capsys.readouterr().err and copied.is_dir()
    for name in (registry.REGISTRY, registry.HEAD):
        (root / name).unlink()
    assert main([*given, "--yes"]) == 0
    assert not copied.exists() and not list((root / ".stages").iterdir())
    assert not (root / "latest").is_symlink()
    assert main(["forget", "--source", path, "--yes", "--runs", str(root)]) == 2


def test_what_is_shared_with_a_sound_run_stays(copied: Path) -> None:
    """A run of the same sources without the file keeps its stages."""
    root, path = copied.parent, in_train(copied)
    place = Records(root).runs[0].sources["woods"]["path"]
    raw = ledger_run.settings(Path(place), collect={"exclude": [f"woods/{path}"]})
    kept = Pipeline(raw, root, Options(until="split")).run().folder
    found = affected(path, Records(root))
    assert [run.name for run in found.runs] == [copied.name]
    gone = delete(found, Records(root))
    assert copied in gone and (kept / "04_split/train/tokens.bin").is_file()
    assert (root / "latest").resolve() == kept.resolve()
