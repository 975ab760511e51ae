"""A tested run as compare sees it: figures per file, holes, cost; the split stays closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.artifacts import MANIFEST, read_json
from gristmill.data.holes import Hole
from gristmill.data.table import read_table
from gristmill.errors import ArtifactError
from gristmill.evaluation.complete import Completion
from gristmill.evaluation.measured import BITS, DOCUMENTS, Measured, read_measured

TEST = "10_test"
MODEL = "model"  # the completer that is the run's own
METHODS = ("ngram", "bz2", "xz")  # without a network, measured on the same files
_HOLES = (
    "completer", "kind", "path", "document", "start", "end",
    "completion", "truth", "exact", "similarity", "keystrokes", "parses",
)  # fmt: skip


@dataclass(frozen=True)
class Tested:
    """One run: what the test kept of it."""

    name: str
    record: dict[str, Any]  # run.json
    metrics: dict[str, Any]
    documents: Measured
    holes: dict[str, list[Completion]]  # by completer
    cost: dict[str, Any]

    @property
    def split(self) -> str:
        """Digest of the texts of its test split."""
        return str(self.metrics["split"])


def read_tested(run: Path) -> Tested:
    """Read a run that was tested; raises ArtifactError where it was not."""
    folder = run / TEST
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(
            f"{run} has not been tested; `gristmill run` with its configuration does what is "
            "missing, then compare again"
        )
    metrics = read_json(folder / "metrics.json")
    if "split" not in metrics:
        raise ArtifactError(
            f"{run} was tested by an older gristmill, which kept no figures per file; the same "
            "`gristmill run` tests it again"
        )
    return Tested(
        name=run.resolve().name,
        record=read_json(run / "run.json"),
        metrics=metrics,
        documents=read_measured(folder / DOCUMENTS, [BITS, *METHODS]),
        holes=_holes(folder),
        cost=_cost(run),
    )


def _holes(folder: Path) -> dict[str, list[Completion]]:
    found: dict[str, list[Completion]] = {}
    for completer, kind, path, document, start, end, *rest in read_table(
        folder / "holes.parquet", list(_HOLES)
    ):
        hole = Hole(document, path, kind, start, end)
        found.setdefault(completer, []).append(Completion(hole, *rest))
    return found


def _cost(run: Path) -> dict[str, Any]:
    """Return what the run took and what it gave; None where it is not known."""
    manifests = [read_json(path) for path in sorted(run.glob(f"*/{MANIFEST}"))]
    joules = [m["energy"]["joules"] for m in manifests]
    train, design = run / "07_train" / "time.json", run / "05_design" / "design.json"
    trained = read_json(train) if train.is_file() else {}
    deployed: dict[str, Any] = next((m["outputs"] for m in manifests if m["stage"] == "deploy"), {})
    return {
        "seconds": sum(m["seconds"] for m in manifests),
        "seconds of training": trained.get("seconds"),
        "joules": None if None in joules else sum(joules),
        "tokens trained on": trained.get("tokens"),
        "parameters": read_json(design).get("parameters") if design.is_file() else None,
        "bytes of the file": deployed.get("model.gguf", {}).get("bytes"),
    }


def common(
    first: Sequence[Completion], second: Sequence[Completion]
) -> tuple[list[Completion], list[Completion]]:
    """Return the completions of the holes that both have, in one order."""
    theirs = {c.hole: c for c in second}
    mine = [c for c in first if c.hole in theirs]
    mine.sort(key=lambda c: (c.hole.doc_id, c.hole.start, c.hole.end, c.hole.kind))
    return mine, [theirs[c.hole] for c in mine]
