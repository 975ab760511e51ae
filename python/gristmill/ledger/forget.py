"""What a source, a folder or a file has reached, a run without it, and what is left to delete.

A stage's manifest names the digest of every earlier output, so whatever was made from a collected
file is found by the digest of its collect: runs, stages of no run, adapters, and runs that began
from an affected model. Near-duplicates are named too: what was removed for its likeness to a
forgotten file comes back without it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.artifacts import MANIFEST, fsync_folder, read_json, storage_errors
from gristmill.data.excluding import literal
from gristmill.errors import ArtifactError, DataError
from gristmill.ledger.records import Records, RunRecord, select
from gristmill.ledger.trace import Block, Row, documents
from gristmill.runs import LATEST, Store

_ROW = re.compile(r"(.*#\d+)")  # of a table: what stands behind its number is not in the pattern
SHOWN = 8


@dataclass
class Affected:
    """All that holds what is to be forgotten."""

    target: str
    rows: list[Row]
    copies: list[Row]  # the same bytes elsewhere; forgotten too
    alike: list[tuple[str, str]]  # (place, why it matters) of near-duplicates
    runs: list[RunRecord]
    derived: list[RunRecord]  # began from an affected model
    stages: list[Path]
    whole: bool  # a source by its name
    splits: dict[str, dict[str, int]] = field(default_factory=dict)  # per run: rows by split


def affected(target: str, records: Records) -> Affected:
    """Find all that a source's name, a folder or a file has reached; raises DataError."""
    names = sorted({name for run in records.runs for name in run.sources})
    whole = target in names
    rows = documents(records, *(("source = ?", [target]) if whole else _below(target, records)))
    if not rows:
        raise DataError(
            f"nothing of {target} was collected in the {len(records.runs)} runs in "
            f"{records.root}; sources: {', '.join(names) or 'none yet'}; a file is named by its "
            "path in the source, or on disk"
        )
    places = {row.where for row in rows}
    ids = sorted({row.id for row in rows})
    same = documents(records, "list_contains(?, id)", [ids])
    copies = [row for row in same if row.where not in places]
    stages = _stages(records, [*rows, *copies])
    direct = [run for run in records.runs if run.stages.get("01_collect") in stages]
    derived = _derived(records, direct)
    stages += _later(derived)
    found = Affected(
        target, rows, copies, _alike(direct, ids), direct, derived, _unique(stages), whole
    )
    found.splits = {run.name: _splits(run, ids) for run in direct}
    return found


def _below(target: str, records: Records) -> tuple[str, list[Any]]:
    """Return the condition for a file or for all below a folder, in any source or on disk."""
    text = Path(target).as_posix().removeprefix("./").rstrip("/")
    tests, values = [], []
    for column in ("path", "source || '/' || path"):
        tests += [f"{column} = ?", f"starts_with({column}, ?)", f"starts_with({column}, ?)"]
        values += [text, f"{text}/", f"{text}#"]
    place = Path(target).expanduser().resolve()
    for run in records.runs:
        for name, source in run.sources.items():
            root = Path(source.get("path") or "/").expanduser().resolve()
            if source.get("path") and place != root and place.is_relative_to(root):
                inside = place.relative_to(root).as_posix()
                tests.append("(source = ? AND (path = ? OR starts_with(path, ?)))")
                values += [name, inside, f"{inside}/"]
            elif source.get("path") and place == root and place.exists():
                tests.append("source = ?")
                values.append(name)
    return " OR ".join(tests), values


def _stages(records: Records, rows: Iterable[Row]) -> list[Path]:
    """Return the collect folders with one of the rows, and every stage made from them."""
    folders = sorted((records.root / ".stages").glob("collect-*/documents.parquet"))
    ids = sorted({row.id for row in rows})
    having = select(folders, (), "list_contains(?, id) GROUP BY filename", [ids])
    collects = {Path(file).parent.resolve() for (file,) in having}
    digests = {read_json(folder / MANIFEST)["digest"] for folder in collects}
    found = [*sorted(collects)]
    for manifest in sorted((records.root / ".stages").glob(f"*/{MANIFEST}")):
        facts = read_json(manifest)
        if facts["depends"]["inputs"].get("collect") in digests:
            found.append(manifest.parent.resolve())
    return found


def _derived(records: Records, direct: list[RunRecord]) -> list[RunRecord]:
    """Return the runs whose keys name weights that an affected run wrote: they began from them."""
    digests = {
        str(entry["sha256"])
        for run in direct
        for label in ("07_train", "09_save", "11_deploy")
        for name, entry in run.manifest(label).get("outputs", {}).items()
        if name.endswith((".gguf", ".safetensors"))
    }
    found: list[RunRecord] = []
    waiting = [run for run in records.runs if run not in direct]
    while digests:
        new = [run for run in waiting if run not in found and _names(run, digests)]
        found += new
        digests = {run.model for run in new if run.model}
    return found


def _names(run: RunRecord, digests: set[str]) -> bool:
    parts = [run.manifest(label).get("depends", {}) for label in run.stages]
    text = json.dumps(parts)
    return any(digest in text for digest in digests)


def _later(derived: list[RunRecord]) -> list[Path]:
    """Return the stages of derived runs that hold the given weights or come from them."""
    return [path for run in derived for label, path in run.stages.items() if label >= "06_"]


def _unique(paths: list[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))


def _splits(run: RunRecord, ids: list[str]) -> dict[str, int]:
    """Return how many of the rows are in each split of a run, and how many were removed."""
    counts: dict[str, int] = {}
    where = "list_contains(?, id)"
    if "02_clean" in run.stages:
        removed = run.stages["02_clean"] / "removed.parquet"
        counts["removed"] = len(select([removed], ("id",), where, [ids]))
    if "04_split" in run.stages:
        path = run.stages["04_split"] / "split.parquet"
        for _, split in select([path], ("split",), where, [ids]):
            counts[split] = counts.get(split, 0) + 1
    return {name: n for name, n in counts.items() if n}


def _alike(runs: list[RunRecord], ids: list[str]) -> list[tuple[str, str]]:
    """Return the near-duplicates: kept beside the rows, or removed because of them."""
    found: dict[str, str] = {}
    for clean in _unique([run.stages["02_clean"] for run in runs if "02_clean" in run.stages]):
        kept = clean / "documents.parquet"
        columns = ("id", "source || '/' || path", "cluster")
        rows = [row[1:] for row in select([kept], columns)]
        groups = {cluster for id, _, cluster in rows if id in ids}
        mine = {place for id, place, _ in rows if id in ids}
        for id, place, cluster in rows:
            if cluster in groups and id not in ids:
                found[place] = "alike, and stays"
        removed = ("id", "source || '/' || path", "value")
        for _, id, place, value in select([clean / "removed.parquet"], removed):
            if id not in ids and any(str(value).endswith(f" {name}") for name in mine):
                found[place] = f"was removed ({value}), and comes back"
    return sorted(found.items())


# --------------------------------------------------------------------------------- telling


def blocks(found: Affected, records: Records) -> list[Block]:
    """Return what is affected, for people and as JSON."""
    told = [_rows_block(found), _runs_block(found, records), _stays(found, records)]
    if found.alike:
        near = Block("near-duplicates: look at them, they are not forgotten")
        _some(near, found.alike)
        told.insert(1, near)
    return told


def _rows_block(found: Affected) -> Block:
    what = "source" if found.whole else "files"
    block = Block(f"{what} {found.target}: {len(found.rows)} rows, {len(found.copies)} copies")
    rows = [(row.where, f"{row.id[:16]}  {row.licence}, {row.bytes:,} bytes") for row in found.rows]
    _some(block, rows)
    _some(block, [(row.where, f"{row.id[:16]}  the same bytes") for row in found.copies])
    return block


def _some(block: Block, rows: list[tuple[str, str]]) -> None:
    for name, text in rows[:SHOWN]:
        block.add(name, text)
    if len(rows) > SHOWN:
        block.add(f"and {len(rows) - SHOWN} more", "--json has all")


def _runs_block(found: Affected, records: Records) -> Block:
    block = Block(f"{len(found.runs)} runs have them, {len(found.derived)} began from such a model")
    for run in found.runs:
        counts = ", ".join(f"{n} {name}" for name, n in found.splits[run.name].items())
        block.add(run.name, f"{counts or 'collected only'}; {_model(run, records)}")
    for run in found.derived:
        block.add(run.name, f"began from the weights of such a run; {_model(run, records)}")
    return block


def _model(run: RunRecord, records: Records) -> str:
    saved = run.stages.get("09_save")
    adapter = bool(saved and list(saved.rglob("adapter_*")))
    if not run.model:
        return "no model yet" + ", an adapter" * adapter
    times = [entry.time for entry in records.promoted if entry.sha256 == run.model]
    now = bool(records.promoted) and records.promoted[-1].sha256 == run.model
    promoted = f", promoted {times[-1]}" + " and served by default" * now if times else ""
    answers = f", {records.answers(run.model):,} answers in the log"
    return f"model {run.model[:16]}" + ", an adapter" * adapter + promoted + answers


def _stays(found: Affected, records: Records) -> Block:
    size = sum(file.stat().st_size for path in found.stages for file in path.rglob("*"))
    block = Block("what stays where it is until you delete it")
    block.add(
        "stages",
        f"{len(found.stages)} folders in {records.root}/.stages, {size / 1e6:.1f} MB: "
        "--delete-old lists them and the runs' folders, with --yes deletes them",
    )
    block.add("log", f"{records.log} may quote answers; registry.jsonl names models: both stay")
    block.add(
        "elsewhere",
        "the sources themselves, copies of models, caches of downloads and backups: no command "
        "of gristmill knows or deletes them",
    )
    return block


# ---------------------------------------------------------------------------- a run without


def without(found: Affected) -> tuple[RunRecord, dict[str, Any]]:
    """Return the newest affected run and its configuration without what is to be forgotten.

    Raises DataError where a source is the only one.
    """
    run = found.runs[-1]
    config: dict[str, Any] = deepcopy(read_json(run.folder / "run.json")["config"])
    collect = config["collect"]
    exclude = [literal(place) for place in _places([*found.rows, *found.copies])]
    if found.whole:
        dropped = _source_of(collect["source"], run.sources, found.target)
        if dropped is not None:
            del collect["source"][dropped]
            collect.get("mix", {}).get("weights", {}).pop(found.target, None)
        exclude = [literal(place) for place in _places(found.copies)]
        exclude += [f"{literal(found.target)}/**"] if dropped is None else []
    if not collect["source"]:
        raise DataError(f"{found.target} is the only source of {run.name}: nothing would be left")
    collect["exclude"] = sorted({*collect.get("exclude", []), *exclude})
    return run, config


def _places(rows: Iterable[Row]) -> list[str]:
    """Return the places as collect.exclude wants them."""
    found = []
    for row in rows:
        table = _ROW.match(row.where)
        found.append(table[1] if table else row.where)
    return found


def _source_of(
    sources: list[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]], name: str
) -> int | None:
    """Return the place in the configuration of a source; None where it is one of several there."""
    listed = list(records)
    if any(source["use"] == "environment" for source in sources) or len(listed) != len(sources):
        return None
    return listed.index(name)


# -------------------------------------------------------------------------------- deleting


def delete(found: Affected, records: Records) -> list[Path]:
    """Delete the affected runs and stages and return them; the promoted model is refused.

    Raises ArtifactError where what is served by default is among them, LockedError, StorageError.
    """
    runs = [*found.runs, *found.derived]
    now = records.promoted[-1] if records.promoted else None
    if now is not None and now.sha256 in {run.model for run in runs}:
        raise ArtifactError(
            f"{now.run} is promoted and would be deleted; promote a run without {found.target} "
            "first: gristmill promote RUN"
        )
    store = Store(records.root)
    with store.lock():
        gone = [run.folder for run in runs] + found.stages
        for path in gone:
            with storage_errors(path):
                shutil.rmtree(path)
        latest = records.root / LATEST
        if latest.is_symlink() and not latest.exists():
            latest.unlink()
            left = store.runs()
            if left:
                os.symlink(left[-1].name, latest)
        fsync_folder(records.root)
    return gone
