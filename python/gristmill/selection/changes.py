"""What has changed since the promoted model, and the three tables that its successor reads.

Files are compared by digest: of a git tree that finds what `git diff` finds, and what was edited
but not committed. `new.jsonl` holds changed files, `old.jsonl` a sample of what the deployed model
was trained on, so that it is not forgotten, `feedback.jsonl` what people edited. Rows carry times:
of the changed files their own, so that splitting by time tests on the newest; all else is older.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gristmill.artifacts import atomic_write, storage_errors
from gristmill.data.counter import string_hash
from gristmill.data.document import Document, is_chat, read_documents
from gristmill.evaluation.bootstrap import FEWEST
from gristmill.selection.voted import Votes
from gristmill.serving.settings import UpdateConfig

NEW, OLD, VOTED = "new", "old", "feedback"
_ORIGIN = re.compile(r"(?:new|old)\.jsonl#\d+:([0-9a-f]{64})(/.*)?")
VOTE = "feedback.txt"
SPARE = 2  # test files more than an interval needs: cleaning may take some


@dataclass(frozen=True)
class Changes:
    """Files by their state since a collection: in the sources now, and gone from them."""

    new: list[Document]  # in order of time
    kept: set[str]  # ids that are as they were
    gone: list[str]  # paths

    def named(self, count: int = 3) -> str:
        """Return the newest few by name."""
        names = [f"{d.source}/{d.path}" for d in self.new[: -count - 1 : -1]]
        more = len(self.new) - len(names)
        return ", ".join(names) + (f" and {more} more" if more else "")


def compare(before: Sequence[Document], now: Sequence[Document], seed: int) -> Changes:
    """Return what changed between two collections of the same sources."""
    known = {document.id for document in before}
    new = [document for document in now if document.id not in known]
    new.sort(key=lambda d: (d.modified, string_hash(seed, f"{d.source}/{d.path}")))
    there = {(d.source, d.path) for d in now}
    gone = [f"{d.source}/{d.path}" for d in before if (d.source, d.path) not in there]
    return Changes(new, {d.id for d in now} & known, gone)


def origin(document: Document) -> str:
    """Return the id a document had in its first source, through any number of updates."""
    found = _ORIGIN.fullmatch(document.path)
    return found[1] if found else document.id


def origin_path(document: Document) -> str:
    """Return source and path in the first source."""
    found = _ORIGIN.fullmatch(document.path)
    return (found[2] or "")[1:] if found else f"{document.source}/{document.path}"


def known_documents(runs: Iterable[Path], kept: set[str]) -> list[Document]:
    """Return what runs were trained on and is still in the sources, or was feedback; no text twice.

    Validation and test files of an update are among them: newer files test the next one.
    Conversations are as they were before split rendered them.
    """
    found: dict[str, Document] = {}
    for run in runs:
        cleaned = read_documents(run / "02_clean" / "documents.parquet")
        clean = {(d.source, d.path): d for d in cleaned}
        for split in ("train", "val", "test"):
            documents = read_documents(run / "04_split" / split / "documents.parquet")
            for document in (clean[d.source, d.path] for d in documents):
                mine = document.source in (NEW, VOTED)  # of an update
                if (split == "train" or mine) and (origin(document) in kept or _voted(document)):
                    found[origin(document)] = document
    return list(found.values())


def _voted(document: Document) -> bool:
    return document.source == VOTED or origin_path(document).startswith(VOTE)


@dataclass(frozen=True)
class Tables:
    """What the candidate reads, and how it is to be split by time."""

    rows: dict[str, list[dict[str, Any]]]
    test: int  # files
    val: int
    chat: bool

    @property
    def total(self) -> int:
        return sum(map(len, self.rows.values()))


def plan_tables(
    changes: Changes, known: Sequence[Document], votes: Votes, config: UpdateConfig, floor: int,
    seed: int,
) -> Tables:  # fmt: skip
    """Return the tables; floor: bytes to train on at least, filled up with old files."""
    chat = is_chat(changes.new[0].path)
    count = len(changes.new)
    test = max(FEWEST + SPARE, round(config.test * count))
    test = min(test, count - 2)
    val = max(1, round(0.15 * (count - test)))
    new = _in_order(changes.new)
    before = new[0].modified - 1
    trained = [d for d in new[: count - test - val]]
    own = sum(len(d.text.encode()) for d in trained)
    voted = [_vote_row(id, value, before) for id, value in (votes.chats if chat else votes.texts)]
    own += sum(len(str(row.get("text", row.get("messages"))).encode()) for row in voted)
    wanted = max(config.old / (1.0 - config.old) * own, floor - own)
    old = _sample(known, wanted, seed)
    rows = {
        NEW: [_row(d, chat) for d in new],
        OLD: [_row(replace(d, modified=min(d.modified, before)), chat) for d in old],
        VOTED: voted,
    }
    return Tables({name: some for name, some in rows.items() if some}, test, val, chat)


def _in_order(documents: Sequence[Document]) -> list[Document]:
    """Return documents whose times differ: files of one commit get seconds of their own."""
    found: list[Document] = []
    for document in documents:
        after = found[-1].modified + 1 if found else document.modified
        found.append(replace(document, modified=max(document.modified, after)))
    return found


def _sample(documents: Sequence[Document], wanted: float, seed: int) -> list[Document]:
    """Return documents in hashed order until there are `wanted` bytes."""
    found, size = [], 0
    for document in sorted(documents, key=lambda d: string_hash(seed, f"old {origin(d)}")):
        if size >= wanted:
            break
        found.append(document)
        size += len(document.text.encode())
    return found


def _row(document: Document, chat: bool) -> dict[str, Any]:
    text = {"messages": json.loads(document.text)["messages"]} if chat else {"text": document.text}
    return {
        **text,
        "id": origin(document),
        "path": origin_path(document),
        "area": document.area,
        "time": document.modified,
        "licence": document.licence,
    }


def _vote_row(id: str, value: Any, time: int) -> dict[str, Any]:
    text = {"text": value} if isinstance(value, str) else {"messages": value}
    return {**text, "id": id, "path": VOTE, "area": VOTED, "time": time, "licence": ""}


def write_tables(tables: Tables, folder: Path) -> list[dict[str, Any]]:
    """Write the tables; returns the sources of the candidate's collect."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    whys = {
        NEW: "changed since the deployed model",
        OLD: "what the deployed model was trained on, so that it is not forgotten",
        VOTED: "answers of the deployed model that people edited or approved",
    }
    sources = []
    for name, rows in tables.rows.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        data = lines.encode("utf-8", "surrogatepass")
        path = folder / f"{name}.jsonl"
        if not path.is_file() or path.read_bytes() != data:  # its time is part of the key
            atomic_write(path, data)
        sources.append(
            {
                "use": "jsonl", "path": str(path), "name": name, "why": whys[name],
                "licence": "feedback of the people served" if name == VOTED else "as in the row",
                "content": "messages" if tables.chat else "text",
                "id_column": "id", "path_column": "path", "area_column": "area",
                "time_column": "time", "licence_column": "" if name == VOTED else "licence",
                "max_bytes": 2**30,
            }
        )  # fmt: skip
    return sources
