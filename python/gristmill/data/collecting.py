"""Collect: from sources to documents, with every file that gives none recorded and counted."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from gristmill.artifacts import sha256_json
from gristmill.data import git, source_facts
from gristmill.data.collect_settings import CollectConfig, FilesSource, Source
from gristmill.data.counter import string_hash
from gristmill.data.document import Document
from gristmill.data.reading import Reading, Unusable, read
from gristmill.data.sources import Candidate, Listing, Skipped, list_sources
from gristmill.data.store import Store
from gristmill.errors import DataError

UTF8 = ("utf-8",)


@dataclass
class Collected:
    """Documents in the order of sources and paths, and what there is to say of the rest."""

    documents: list[Document]
    skipped: list[Skipped]
    notes: list[str]
    sources: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Task:
    """One file to read and where it stands."""

    number: int  # of its source
    candidate: Candidate
    listing: Listing
    source: Source


def fingerprint(config: CollectConfig) -> list[Any]:
    """Return what is in the world now: per source its revision and (path, size, time) per file.

    Raises DataError like `collect` when a source is missing or holds nothing.
    """
    return [
        [
            listing.name,
            listing.kind,
            listing.revision,
            sha256_json([(c.path, c.size, c.modified_ns) for c in listing.candidates]),
        ]
        for listing in list_sources(config.source)
    ]


def collect(
    config: CollectConfig,
    store: Store,
    seed: int,
    progress: Callable[[str], None] = lambda message: None,
) -> Collected:
    """Read all sources into the store and return the documents.

    With `limit`, files are read in an order hashed under `seed` until there are that many, so a
    larger limit keeps the files of a smaller one. Raises DataError when a source is missing, holds
    no text, or when more than `max_faulty` of its files are faulty; StorageError when the disk
    refuses.
    """
    progress("listing files")
    listings = list_sources(config.source)
    skipped = [row for listing in listings for row in listing.skipped]
    tasks = _tasks(config, listings, seed)
    readings: dict[tuple[int, str], Document] = {}
    times = [_commit_times(listing) for listing in listings]
    prefixes = [_common_folder([c.path for c in listing.candidates]) for listing in listings]
    tried = 0
    for done, task in enumerate(tasks):
        if config.limit and len(readings) == config.limit:
            skipped += [_beyond(task, config.limit) for task in tasks[done:]]
            break
        if done % 200 == 0:
            progress(f"reading {done} of {len(tasks)} files")
        candidate, name = task.candidate, task.listing.name
        tried += 1
        try:
            reading = _read(task)
        except Unusable as error:
            skipped.append(Skipped(name, candidate.path, error.reason, error.fault))
            continue
        area = _area(candidate.path, prefixes[task.number], name if len(listings) > 1 else "")
        modified = times[task.number].get(candidate.path, candidate.modified_ns // 10**9)
        document = _document(task, reading, store.put(reading.raw), area, modified)
        readings[task.number, candidate.path] = document
    _check(config, listings, readings, skipped, tried)
    documents = _dated([readings[key] for key in sorted(readings)])
    notes = [note for listing in listings for note in listing.notes]
    collected = Collected(documents, sorted(skipped, key=_place), notes)
    collected.sources = source_facts.describe(listings, documents, skipped)
    return collected


def _tasks(config: CollectConfig, listings: Sequence[Listing], seed: int) -> list[_Task]:
    tasks = [
        _Task(number, candidate, listing, listing.source)
        for number, listing in enumerate(listings)
        for candidate in listing.candidates
    ]
    if config.limit:
        tasks.sort(key=lambda task: string_hash(seed, f"{task.number}/{task.candidate.path}"))
    return tasks


def _read(task: _Task) -> Reading:
    candidate, source = task.candidate, task.source
    encodings = source.encodings if isinstance(source, FilesSource) else UTF8
    return read(candidate.file, candidate.path, encodings, source.max_bytes)


def _document(task: _Task, reading: Reading, digest: str, area: str, modified: int) -> Document:
    return Document(
        id=digest,
        source=task.listing.name,
        path=task.candidate.path,
        area=area,
        licence=task.listing.licence,
        why=task.source.why,
        bytes=len(reading.raw),
        modified=modified,
        retrieved_at=0,  # of the whole source, known at the end
        encoding=reading.encoding,
        text=reading.text,
    )


def _beyond(task: _Task, limit: int) -> Skipped:
    return Skipped(task.listing.name, task.candidate.path, f"beyond limit = {limit}")


def _place(row: Skipped) -> tuple[str, str]:
    return row.source, row.path


def _commit_times(listing: Listing) -> dict[str, int]:
    """Return the commit times of tracked files; one that was edited since keeps its own time."""
    if listing.kind != "git":
        return {}
    try:
        times = git.commit_times(listing.root, [c.path for c in listing.candidates])
        edited = git.changed(listing.root)
    except git.GitError as error:
        listing.notes.append(f"{listing.name}: times of the files, not of commits, git: {error}")
        return {}
    listing.times = "git"
    return {path: time for path, time in times.items() if path not in edited}


def _common_folder(paths: Sequence[str]) -> str:
    """Return the folder all paths lie in, with its closing '/', or ""."""
    folders = [PurePosixPath(path).parent.as_posix() for path in paths]
    common = os.path.commonpath(folders) if folders else ""
    return f"{common}/" if common not in ("", ".") else ""


def _area(path: str, prefix: str, source: str) -> str:
    """Return the first folder below what all files share ('.' for none), with several sources
    after the source's name.
    """
    first, slash, _ = path.removeprefix(prefix).partition("/")
    area = first if slash else "."
    return f"{source}/{area}" if source else area


def _dated(documents: list[Document]) -> list[Document]:
    """Set `retrieved_at` to the newest time in the document's source."""
    newest: dict[str, int] = {}
    for document in documents:
        newest[document.source] = max(newest.get(document.source, 0), document.modified)
    return [replace(d, retrieved_at=newest[d.source]) for d in documents]


def _check(
    config: CollectConfig,
    listings: Sequence[Listing],
    documents: dict[tuple[int, str], Document],
    skipped: Sequence[Skipped],
    tried: int,
) -> None:
    """Raise DataError for a source without text, or with too many faulty files."""
    filled = {document.source for document in documents.values()}
    rows_of: dict[str, list[Skipped]] = defaultdict(list)
    for row in skipped:
        rows_of[row.source].append(row)
    for listing in listings:
        rows = rows_of[listing.name]
        limited = any(row.reason.startswith("beyond limit") for row in rows)
        if listing.name not in filled and not limited and listing.kind != "package":
            raise DataError(
                f"source {listing.name}: no text in {_files(len(listing.candidates))} of "
                f"{listing.root}: {_examples(rows)}"
            )
    if not documents:
        raise DataError(f"no text in {_files(tried)} of all sources: {_examples(skipped)}")
    faults = [row for row in skipped if row.fault]
    if len(faults) > config.max_faulty * (len(faults) + len(documents)):
        raise DataError(
            f"{len(faults)} of {_files(tried)} {'is' if len(faults) == 1 else 'are'} faulty, "
            f"allowed is a share of "
            f"{config.max_faulty:g}: {_examples(faults)}; repair them, leave them out by exclude, "
            "give their encodings, or raise collect.max_faulty"
        )


def _files(n: int) -> str:
    return "1 file" if n == 1 else f"{n} files"


def _examples(rows: Sequence[Skipped]) -> str:
    shown = "; ".join(f"{row.path} ({row.reason})" for row in rows[:3])
    return shown + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
