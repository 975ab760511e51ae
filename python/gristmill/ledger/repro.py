"""Whether a run repeats: its own configuration again, in a fresh store, compared bit by bit.

What a run measured decides what it did: design.minutes became a number of steps by the machine's
speed, train.dtype "auto" a type by its instructions. Both are given to the second run as they came
out in the first, so that it does the same work on any machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.artifacts import MANIFEST, read_json, storage_errors, write_json
from gristmill.errors import ArtifactError, ReproError
from gristmill.keys import engine_digest, source_digests
from gristmill.ledger.variation import difference, left_out
from gristmill.pipeline import find_stage

WEIGHTS = "model/model.safetensors"


@dataclass(frozen=True)
class Compared:
    """One stage that came out equal: its files, and the fields in which they may differ."""

    label: str
    files: int
    apart: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Order:
    """What the second run is told to do, and what was decided for it."""

    config: dict[str, Any]
    labels: list[str]  # stages to compare
    given: dict[str, str]
    environment: dict[str, str]
    notes: list[str]


def order(run: Path, threads: int | None, first: str | None) -> Order:
    """Return how to repeat a run from stage `first` on; raises ArtifactError where it cannot be."""
    record = read_json(run / "run.json")
    labels = sorted(record["stages"])
    manifests = {label: read_json(run / label / MANIFEST) for label in labels}
    start = labels[0] if first is None else find_stage(first).folder
    if start not in labels:
        raise ArtifactError(f"{run} has no stage {start[3:]}; it has {', '.join(labels)}")
    again = [label for label in labels if label >= start]
    given = {manifests[x]["stage"]: str((run / x).resolve()) for x in labels if x < start}
    config, notes = _pinned(run, record["config"])
    environment, more = _environment(manifests, config, threads)
    return Order(config, again, given, environment, [*notes, *more])


def repeat(run: Path, root: Path, order: Order) -> Iterator[Compared]:
    """Run again beside `root` and yield each stage that is equal; the new store is then deleted.

    Raises ReproError at the first stage and file that differ; the new store is then kept.
    """
    with storage_errors(root):
        store = Path(tempfile.mkdtemp(prefix=".repro-", dir=root))
    keep = False
    try:
        _run(store, order)
        again = next(iter(store.glob("*/run.json"))).parent
        for label in order.labels:
            yield _compare(run, again, label)
    except ReproError as error:
        keep = True
        raise ReproError(f"{error}; the second run is kept in {store}") from None
    finally:
        if not keep:
            shutil.rmtree(store, ignore_errors=True)


def weights(run: Path) -> str:
    """Return the sha256 of the saved weights, "" where the run has none."""
    path = run / "09_save" / MANIFEST
    outputs = read_json(path)["outputs"] if path.is_file() else {}
    return str(outputs[WEIGHTS]["sha256"]) if WEIGHTS in outputs else ""


# ------------------------------------------------------------------------- the second run


def _pinned(run: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the configuration with what the machine decided written out, and what that was."""
    pinned: dict[str, Any] = deepcopy(dict(config))
    pinned["project"]["gates"] = "record"  # what did not pass then may fail again
    path = run / "05_design" / "design.json"
    if not path.is_file():
        return pinned, []
    facts, notes = read_json(path), []
    if pinned["design"]["steps"] is None:
        pinned["design"]["steps"] = facts["steps"]
        minutes = pinned["design"]["minutes"]
        notes.append(f"design.steps = {facts['steps']}, measured then for {minutes:g} minutes")
    if pinned["train"]["dtype"] == "auto":
        pinned["train"]["dtype"] = facts["train"]["dtype"]
        notes.append(f'train.dtype = "{facts["train"]["dtype"]}", chosen then')
    return pinned, notes


def _environment(
    manifests: Mapping[str, Any], config: Mapping[str, Any], threads: int | None
) -> tuple[dict[str, str], list[str]]:
    """Return the variables of the second process: threads, and the table where it shows."""
    variables, notes = {}, []
    if threads is not None:
        variables["GRISTMILL_THREADS"] = str(threads)
        notes.append(f"GRISTMILL_THREADS = {threads}")
    table = manifests.get("07_train", {}).get("machine", {}).get("table")
    if table and config["train"]["dtype"] == "bf16":
        variables["GRISTMILL_ISA"] = table
        notes.append(f"kernels of table {table}, because bf16 has its own bits on each")
    return variables, notes


def _run(store: Path, order: Order) -> None:
    path = store / "order.json"
    until = order.labels[-1][3:]
    facts = {"config": order.config, "store": str(store), "until": until, "given": order.given}
    write_json(path, facts)
    command = [sys.executable, "-m", "gristmill.ledger.again", str(path)]
    environment = {**os.environ, **order.environment}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise ArtifactError(f"the second run did not end: {said.removeprefix('error: ')}")


# ----------------------------------------------------------------------------- comparison


def _compare(run: Path, again: Path, label: str) -> Compared:
    """Compare one stage by the recorded digests, and by content where fields may differ."""
    first, second = (read_json(folder / label / MANIFEST) for folder in (run, again))
    ours, theirs = first["outputs"], second["outputs"]
    apart: dict[str, tuple[str, ...]] = {}
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs:
            found = f"only in the {'second' if name not in ours else 'first'} run"
        elif ours[name]["sha256"] == theirs[name]["sha256"]:
            continue
        else:
            found = difference(first["stage"], name, run / label / name, again / label / name)
            apart[name] = left_out(first["stage"], name)
        if found:
            raise ReproError(
                f"{run.name} does not repeat: stage {label[3:]}, file {name}: {found}"
                + _reasons(first, run, again)
            )
    return Compared(label, len(ours), apart)


def _reasons(manifest: Mapping[str, Any], run: Path, again: Path) -> str:
    """Return what is known to be other than it was."""
    known = []
    stage = find_stage(manifest["stage"])
    if stage.name == "collect":
        changed = _changed_sources(run, again)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            known.append(f"files of the sources: {', '.join(changed[:3])}{more} (--from clean "
                         "repeats all else on what was collected then)")  # fmt: skip
    now = source_digests(stage.module)
    modules = [name for name, digest in manifest["sources"].items() if now.get(name) != digest]
    if modules:
        known.append(f"source of {', '.join(modules[:3])}" + " and more" * (len(modules) > 3))
    engine = manifest["depends"]["engine"]
    if engine and engine != engine_digest():
        known.append("the extension _C or a swapped kernel")
    return f"; changed since that run: {'; '.join(known)}" if known else ""


def _changed_sources(run: Path, again: Path) -> list[str]:
    """Return source/path of the documents that are not the same in both."""
    from gristmill.data.table import read_table

    path, columns = "01_collect/documents.parquet", ["source", "path", "id"]
    first, second = (set(read_table(folder / path, columns)) for folder in (run, again))
    return sorted({f"{source}/{name}" for source, name, _ in first ^ second})
