"""Stage 3: quality of every file by labelling functions, kinds of holes, and what that is worth.

Gates: the labelling functions agree; where people audited a sample, the labels agree with them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.artifacts import (
    Gate,
    Result,
    StageContext,
    atomic_write,
    sha256_bytes,
    sha256_file,
    write_json,
)
from gristmill.data import annotation, audit_file
from gristmill.data.annotation import UNAUDITED, Annotated, Audit
from gristmill.data.document import Document, read_documents
from gristmill.data.guideline import GUIDELINE
from gristmill.data.table import write_table
from gristmill.errors import DataError

if TYPE_CHECKING:
    from gristmill.config import Config

SAMPLE = "audit_sample.csv"
_EMPTY = Annotated([], [], [], [], None)


def fingerprint(config: Config) -> list[str]:
    """Return the digests of the files a person wrote: a new audit makes another run."""
    paths = (config.annotate.guideline, config.annotate.audit)
    return [sha256_file(path) if path and Path(path).is_file() else path for path in paths]


def run(ctx: StageContext) -> Result:
    """Write labels.parquet, guideline.json, functions.json and audit_sample.csv."""
    config = ctx.config.annotate
    documents = read_documents(ctx.input("clean") / "documents.parquet")
    text = _guideline(config.guideline)
    digest = sha256_bytes(text.encode("utf-8"))
    sample = annotation.audit_sample(documents, config.audit_size, ctx.seed)
    audit = None
    if config.audit:
        rows = audit_file.read_audit(Path(config.audit), digest)
        audit = annotation.use_audit(rows, sample)
    ctx.progress("labelling files")
    done = _EMPTY
    if config.task != "none":
        done = annotation.annotate(documents, config.kinds, config.annotator, digest, audit)
    labels = (astuple(label) for label in done.labels)
    write_table(ctx.out / "labels.parquet", annotation.LABEL_SCHEMA, labels)
    write_json(ctx.out / "guideline.json", {"text": text, "sha256": digest})
    atomic_write(ctx.out / SAMPLE, audit_file.empty_audit(sample, digest).encode("utf-8"))
    named = zip((document.id for document in documents), done.quality, strict=False)
    accuracy = annotation.accuracy(named, audit)
    facts = {
        "functions": done.functions,
        "agreement": done.agreement,
        "accuracy": accuracy,
        "audit": {"size": len(sample), "unused": audit.unused} if audit else UNAUDITED,
        "skip": config.skip,
    }
    write_json(ctx.out / "functions.json", facts)
    gates = _gates(config.min_agreement, done.agreement, accuracy)
    return Result(
        _summary(done, accuracy), gates, _report(config, done, audit, accuracy, documents)
    )


def _guideline(path: str) -> str:
    if not path:
        return GUIDELINE
    try:
        return Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise DataError(
            f"cannot read annotate.guideline {path}: {error.strerror or error}"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None


def _gates(bar: float, agreement: float | None, accuracy: dict[str, Any] | str) -> list[Gate]:
    gates = []
    if agreement is not None:
        name = "agreement of the labelling functions"
        gates.append(Gate(name, agreement, bar, agreement >= bar, "functions.json"))
    if isinstance(accuracy, dict):
        value = accuracy["value"]
        gates.append(Gate("agreement with people", value, bar, value >= bar, "functions.json"))
    return gates


def _summary(done: Annotated, accuracy: dict[str, Any] | str) -> str:
    if not done.quality:
        return "nothing labelled"
    counts = Counter(done.quality)
    shown = ", ".join(f"{n} {label}" for label, n in sorted(counts.items()))
    worth = f"{accuracy['value']:.0%} right" if isinstance(accuracy, dict) else accuracy
    return f"{shown}, {worth}"


def _holes(done: Annotated) -> Counter[str]:
    counts: Counter[str] = Counter()
    for label in done.labels:
        if label.task.startswith(annotation.HOLES):
            counts[label.task.removeprefix(f"{annotation.HOLES}.")] += int(label.label)
    return counts


def _report(
    config: Any, done: Annotated, audit: Audit | None, accuracy: Any, documents: list[Document]
) -> dict[str, Any]:
    what = (
        "Labelling functions vote on the quality of every file, and the holes a completer could "
        "be asked to fill are counted by kind. Every label has its annotator, time and guideline."
    )
    why = "Later stages sort and slice by these labels; how far to trust them is measured, or said."
    if config.task == "none":
        what = f"Nothing is labelled: {config.skip}"
    said = accuracy
    if isinstance(accuracy, dict):
        said = "{value:.2f} [{low:.2f}, {high:.2f}], n = {n}".format(**accuracy)
    agreement = "no file has two votes" if done.agreement is None else round(done.agreement, 3)
    numbers = {
        "files": len(documents),
        "labels": len(done.labels),
        "agreement of functions": agreement,
        "accuracy against people": said,
        **({f"audit rows, {reason}": n for reason, n in audit.unused.items()} if audit else {}),
    }
    counts, holes = Counter(done.quality), _holes(done)
    return {
        "what": what,
        "why": why,
        "numbers": numbers,
        "plots": [
            _bars("Quality", "label", "files", sorted(counts.items())),
            _bars("Holes", "kind", "holes", list(holes.items())),
        ]
        if done.quality
        else [],
        "tables": [_functions(done)] if done.quality else [],
    }


def _bars(title: str, x_label: str, y_label: str, pairs: list[tuple[str, int]]) -> dict[str, Any]:
    series = [{"name": y_label, "x": [x for x, _ in pairs], "y": [y for _, y in pairs]}]
    axes = {"x_label": x_label, "y_label": y_label}
    return {"title": title, "kind": "bar", **axes, "series": series}


def _functions(done: Annotated) -> dict[str, Any]:
    rows = []
    for f in done.functions:
        right = f["accuracy"]
        shares = [round(f[name], 3) for name in ("coverage", "overlap", "conflict")]
        worth = round(right["value"], 3) if isinstance(right, dict) else right
        rows.append([f["name"], f["says"], *shares, f["good"], f["poor"], worth])
    columns = ["function", "says", "coverage", "overlap", "conflict", "good", "poor", "accuracy"]
    return {"title": "Labelling functions", "columns": columns, "rows": rows}
