"""Where a thing comes from and where it went: served answer, model, row and source file.

Every function gives blocks: a title and rows of (name, text), for people and as JSON.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.artifacts import sha256_file
from gristmill.errors import DataError
from gristmill.ledger.records import Records, RunRecord, select
from gristmill.serving import feedback, request_log

ROW = ("id", "source", "path", "licence", "bytes", "encoding", "modified")
_HEX = re.compile(r"[0-9a-f]{8,64}")
SHOWN = 10  # rows or runs of one kind; how many more there are is said


@dataclass
class Block:
    """One part of the answer."""

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, text: Any) -> None:
        """Add a row unless there is nothing to say."""
        if text not in (None, ""):
            self.rows.append((name, str(text)))


def trace(what: str, records: Records) -> list[Block]:
    """Trace an answer's id, a model file or folder, a document's id or the path of a source file.

    Raises DataError for what is none of these.
    """
    if feedback.ANSWER.fullmatch(what):
        return answer(what, records)
    path = Path(what)
    if path.suffix in (".gguf", ".safetensors") and path.is_file():
        return model(sha256_file(path), path, records)
    if _HEX.fullmatch(what):
        rows = documents(records, "starts_with(id, ?)", [what])
        if rows:
            return [block for row in rows[:SHOWN] for block in document(row, records)]
        if len(what) == 64 and (found := _runs_with(records, what)):
            return model(what, Path(found[0].name), records)
    rows = documents(records, *_as_path(path, records))
    if not rows:
        names = ", ".join(sorted({s for run in records.runs for s in run.sources})) or "none yet"
        raise DataError(
            f"{what} is no answer in {records.log}, no model file, no document id (at least 8 "
            f"hex digits) and no source file of the {len(records.runs)} runs in {records.root}; "
            f"sources: {names}"
        )
    blocks = [block for row in rows[:SHOWN] for block in document(row, records)]
    if len(rows) > SHOWN:
        blocks.append(Block(f"{len(rows) - SHOWN} further rows; give more of the path or the id"))
    return blocks


# ------------------------------------------------------------------------------- documents


@dataclass(frozen=True)
class Row:
    """One collected document and the runs that collected it."""

    id: str
    source: str
    path: str
    licence: str
    bytes: int
    encoding: str
    modified: int
    runs: tuple[RunRecord, ...]

    @property
    def where(self) -> str:
        return f"{self.source}/{self.path}"


def documents(records: Records, condition: str, values: Sequence[Any]) -> list[Row]:
    """Return the collected documents that meet an SQL condition, each once, by source and path."""
    folders = records.by_folder("01_collect", "documents.parquet")
    found: dict[tuple[Any, ...], list[RunRecord]] = {}
    files = [folder / "documents.parquet" for folder in folders]
    for file, *row in select(files, ROW, condition, values):
        found.setdefault(tuple(row), []).extend(folders[Path(file).parent])
    rows = [
        Row(**dict(zip(ROW, row, strict=True)), runs=tuple(runs)) for row, runs in found.items()
    ]
    return sorted(rows, key=lambda row: (row.where, row.id))


def _as_path(path: Path, records: Records) -> tuple[str, list[Any]]:
    """Return the condition for a path: in its source, with the source's name, or on disk."""
    text = path.as_posix().removeprefix("./")
    condition = "path = ? OR source || '/' || path = ? OR ends_with(path, ?)"
    values: list[Any] = [text, text, f"/{text}"]
    place = path.expanduser().resolve()
    for run in records.runs:
        for name, source in run.sources.items():
            root = Path(source.get("path") or "/").expanduser().resolve()
            if source.get("path") and place.is_relative_to(root):
                condition += " OR (source = ? AND path = ?)"
                values += [name, place.relative_to(root).as_posix()]
    return condition, values


def document(row: Row, records: Records) -> list[Block]:
    """Return where a document comes from, and per run what became of it and who has it."""
    blocks = [_origin(row)]
    seen: dict[tuple[Path, ...], Block] = {}
    for run in row.runs:
        shared = tuple(run.stages[x] for x in sorted(run.stages) if x < "05")
        if shared not in seen:
            seen[shared] = Block("in run " + run.name, _way(row, run))
            blocks.append(seen[shared])
        seen[shared].rows += _reached(run, records, seen[shared])
    return blocks


def _origin(row: Row) -> Block:
    block = Block(f"document {row.id[:16]}")
    block.add("file", row.where)
    block.add("sha256", row.id)
    block.add("licence", row.licence)
    block.add("size", f"{row.bytes:,} bytes, {row.encoding}")
    block.add("changed", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(row.modified)))
    for name, value in sorted(_source_facts(row).items()):
        block.add(name, value)
    return block


def _source_facts(row: Row) -> dict[str, str]:
    """Return what the newest run says of the row's source."""
    source = row.runs[-1].sources.get(row.source, {})
    revision = source.get("revision", "")
    commit = "commit" if source.get("kind") == "git" else "version"
    facts = {"source": f"{source.get('kind', '')} {source.get('path', '')}".strip()}
    facts["collected because"] = str(source.get("why", ""))
    return facts | ({commit: str(revision)} if revision else {})


def _way(row: Row, run: RunRecord) -> list[tuple[str, str]]:
    """Return the row's way through clean, annotate and split of one run."""
    way, key = Block(""), [row.id, row.source, row.path]
    same = "id = ? AND source = ? AND path = ?"
    if "02_clean" not in run.stages:
        return [("clean", "not done in this run")]
    clean = run.stages["02_clean"]
    columns = ("step", "rule", "value", "threshold")
    for _, *rule in select([clean / "removed.parquet"], columns, same, key):
        return [("clean", "removed by step {}: {} {}, allowed {}".format(*rule))]
    for _, cluster, size in select(
        [clean / "documents.parquet"], ("cluster", "length(text)"), same, key
    ):
        way.add("clean", f"kept, {size:,} characters, group {cluster}")
    if "03_annotate" in run.stages:
        labels = run.stages["03_annotate"] / "labels.parquet"
        found = select(
            [labels], ("label",), "id = ? AND task = 'quality' AND source = 'vote'", [row.id]
        )
        way.add("annotate", ", ".join(sorted({label for _, label in found})))
    if "04_split" in run.stages:
        split = run.stages["04_split"]
        for _, name, reason in select([split / "split.parquet"], ("split", "reason"), same, key):
            way.add("split", f"{name} ({reason})" + _tokens(split / name, row))
    return way.rows


def _tokens(shard: Path, row: Row) -> str:
    """Return where the row's tokens lie in its shard."""
    import numpy as np

    if not (shard / "documents.parquet").is_file():
        return ""
    ids = [id for _, id in select([shard / "documents.parquet"], ("id",))]
    offsets = np.load(shard / "offsets.npy", allow_pickle=False)
    if row.id not in ids or len(offsets) != len(ids) + 1:
        return ""
    first, end = offsets[ids.index(row.id) :][:2].tolist()
    return f", tokens {first:,} to {end:,} of {shard.name}/tokens.bin"


def _reached(run: RunRecord, records: Records, way: Block) -> list[tuple[str, str]]:
    """Return whether the model of a run holds the row, is promoted, and has answered."""
    split = next((text.split(" ")[0] for name, text in way.rows if name == "split"), "")
    if not split:
        return []
    if not run.model:
        return [(run.name, f"in {split}; the run has no model yet")]
    trained = "trained on it" if split == "train" else f"not trained on it: it is in {split}"
    promotions = [e.time for e in records.promoted if e.sha256 == run.model]
    promoted = f"promoted {promotions[-1]}" if promotions else "never promoted"
    answered = f"{records.answers(run.model):,} answers in the log"
    return [(run.name, f"model {run.model[:16]} {trained}; {promoted}; {answered}")]


# ---------------------------------------------------------------------------------- models


def _runs_with(records: Records, digest: str) -> list[RunRecord]:
    """Return the runs that have a file with this sha256 as model or weights."""
    found = []
    for run in records.runs:
        for label in ("11_deploy", "09_save"):
            outputs = run.manifest(label).get("outputs", {})
            if any(entry["sha256"] == digest for entry in outputs.values()):
                found.append(run)
                break
    return found


def model(digest: str, path: Path, records: Records) -> list[Block]:
    """Return the runs a model comes from, their stages and what they were trained on."""
    runs = _runs_with(records, digest)
    block = Block(f"model {digest[:16]}")
    block.add("file", path)
    block.add("sha256", digest)
    if not runs:
        block.add("run", f"none in {records.root} has this file; `gristmill verify {path}` reads "
                  "what it says of itself")  # fmt: skip
        return [block]
    for run in runs[:SHOWN]:
        block.add("run", run.name)
    for entry in records.promoted:
        if entry.sha256 == digest:
            block.add("promoted", f"{entry.time}, {entry.reason}")
    block.add("answers", f"{records.answers(digest):,} in {records.log}")
    return [block, _stages(runs[-1]), _trained_on(runs[-1])]


def _stages(run: RunRecord) -> Block:
    block = Block(f"stages of {run.name}")
    for label, folder in run.stages.items():
        manifest = run.manifest(label)
        block.add(label[3:], f"{folder.name}  outputs {manifest['digest'][:16]}")
    return block


def _trained_on(run: RunRecord) -> Block:
    """Return the sources of the training split with licence, revision and number of files."""
    block = Block("trained on")
    path = run.stages["04_split"] / "train" / "documents.parquet"
    counts = select([path], ("source", "licence", "count(*)"), "true GROUP BY ALL ORDER BY source")
    for _, name, licence, files in counts:
        source = run.sources.get(name, {})
        revision = source.get("revision") or "without revision"
        text = f"{files:,} files, {licence}; {source.get('kind', '')} {source.get('path', '')} "
        block.add(name, f"{text.rstrip()} at {revision}")
    return block


# --------------------------------------------------------------------------------- answers


def answer(id: str, records: Records) -> list[Block]:
    """Return request, model, stages and sources of a served answer, and the nearest rows."""
    from gristmill.ledger.near import nearest_block

    votes = request_log.find(records.log.with_name(feedback.NAME), id)
    entry = request_log.find(records.log, id) or votes
    if entry is None or "answer" not in entry:
        raise DataError(
            f"no answer {id} in {records.log} and its older parts, nor in {feedback.NAME} beside "
            "it; a log elsewhere is given by --log-file"
        )
    block = Block(f"answer {id}")
    block.add("served", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(entry["time"]))))
    block.add("endpoint", entry.get("endpoint"))
    for choice in entry["answer"]:
        block.add("text", _line(choice["text"]))
    if votes:
        block.add("rating", votes.get("rating"))
        block.add("better text", _line(votes.get("ideal") or ""))
    runs = _runs_with(records, entry["model"])
    file = runs[-1].folder / "11_deploy" / "model.gguf" if runs else Path("model.gguf")
    blocks = [block, *model(entry["model"], file, records)]
    return [*blocks, nearest_block(entry["answer"], runs[-1])] if runs else blocks


def _line(text: str) -> str:
    shown = text.replace("\n", "⏎")
    return shown if len(shown) <= 200 else shown[:197] + "..."
