"""Collect: from sources to documents, with every file and row that gives none recorded."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from gristmill.artifacts import sha256_json
from gristmill.data import git, mixing, remote, source_facts
from gristmill.data.collect_settings import CollectConfig, FilesSource, HttpSource, RowColumns
from gristmill.data.counter import string_hash
from gristmill.data.document import Document
from gristmill.data.excluding import REASON, excluded
from gristmill.data.mixing import Mixture, Place, Pool
from gristmill.data.reading import Reading, Unusable, read
from gristmill.data.rows import RowText, read_rows, to_text
from gristmill.data.sources import Candidate, Fetch, Listing, Skipped, downloads_of, list_sources
from gristmill.data.store import Store
from gristmill.errors import DataError

UTF8 = ("utf-8",)


@dataclass
class Collected:
    """Documents in the order of the mixture, and what there is to say of the rest."""

    documents: list[Document]
    skipped: list[Skipped]
    notes: list[str]
    sources: list[dict[str, Any]] = field(default_factory=list)
    mixture: dict[str, Any] = field(default_factory=dict)
    shortfall: float = 0.0  # largest share that a group lacks of what was asked


def fingerprint(config: CollectConfig) -> list[Any]:
    """Return what is in the world now: per source its revision and (path, size, time) per file.

    Of a source by HTTP it is nothing, since no server is asked: its addresses, sums and version are
    in the configuration. Raises DataError like `collect` when a source is missing or holds nothing.
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

    Files and rows are taken in an order hashed under `seed` until there are `limit` of them, or the
    text that `mix` asks for, so a larger limit keeps what a smaller one took. Raises DataError when
    a source is missing, holds no text, or when more than `max_faulty` of its files and rows are
    faulty; StorageError when the disk refuses.
    """
    progress("listing files")
    listings = list_sources(config.source, _fetching(config, progress))
    reader = _Reader(config, listings, store, seed, progress)
    reader.tables()
    reader.files()
    mixture = mixing.settle(config, reader.pools, listings)
    store.keep({document.id for document in mixture.documents})
    skipped = reader.left_out(mixture)
    _check(config, reader, mixture, skipped)
    documents = _dated(mixture.documents)
    notes = [note for listing in listings for note in listing.notes]
    return Collected(
        documents,
        sorted(skipped, key=_place),
        notes,
        source_facts.describe(listings, documents, skipped, reader.digests),
        mixture.facts,
        mixture.shortfall,
    )


def _fetching(config: CollectConfig, progress: Callable[[str], None]) -> Fetch:
    """Return what downloads a source; one of weight 0 is not worth the bytes."""

    def fetch(source: HttpSource) -> Listing:
        listing = downloads_of(source)
        if config.mix.weights.get(mixing.group_of(listing)) == 0.0:
            listing.skip("*", "weight 0 in collect.mix")
            return listing
        return remote.listed(source, progress)

    return fetch


class _Reader:
    """Reads listings into pools and keeps the list of what gave no document."""

    def __init__(
        self,
        config: CollectConfig,
        listings: Sequence[Listing],
        store: Store,
        seed: int,
        progress: Callable[[str], None],
    ) -> None:
        self.config, self.listings, self.store = config, listings, store
        self.seed, self.progress = seed, progress
        self.pools: list[Pool] = mixing.pools_of(config, listings)
        self.skipped = [row for listing in listings for row in listing.skipped]
        self.bad_rows: set[tuple[str, str]] = set()  # faulty ones, by source and path
        self.whole_tables = 0  # read to their end
        self.good: Counter[tuple[int, str]] = Counter()  # rows of a file that could be a document
        self.read: dict[Place, Candidate] = {}  # whole files that are a document
        self.cut: set[str] = set()  # sources of which not all was asked for
        self.digests: dict[tuple[int, str], str] = {}  # sha256 of the tables
        self._excluded = excluded(config.exclude)
        self._prefixes = [_common_folder([c.path for c in x.candidates]) for x in listings]

    def key(self, number: int, path: str) -> int:
        return string_hash(self.seed, f"{number}/{path}")

    def skip(self, number: int, path: str, error: Unusable) -> None:
        self.skipped.append(Skipped(self.listings[number].name, path, error.reason, error.fault))

    # -------------------------------------------------------------------------- whole files

    def files(self) -> None:
        """Read whole files in the order of their keys, as long as a pool wants them."""
        tasks = sorted(
            (self.key(number, candidate.path), number, candidate)
            for number, listing in enumerate(self.listings)
            for candidate in listing.candidates
            if not candidate.form
        )
        times = [_commit_times(listing) for listing in self.listings]
        for done, (key, number, candidate) in enumerate(tasks):
            if done % 200 == 0:
                self.progress(f"reading {done} of {len(tasks)} files")
            if not self.pools[number].wants(key):
                self.skip(number, candidate.path, Unusable(self._beyond(number), False))
                continue
            try:
                reading = self._read(number, candidate)
            except Unusable as error:
                self.skip(number, candidate.path, error)
                continue
            modified = times[number].get(candidate.path, candidate.modified_ns // 10**9)
            place = number, candidate.path, 0
            self.read[place] = candidate
            self.pools[number].add(key, place, self._whole(place, reading, modified))

    def _wanted(self, number: int, path: str) -> None:
        """Raise Unusable for what the configuration excludes."""
        if self._excluded(f"{self.listings[number].name}/{path}"):
            self.cut.add(self.listings[number].name)
            raise Unusable(REASON, False)

    def _read(self, number: int, candidate: Candidate) -> Reading:
        self._wanted(number, candidate.path)
        source = self.listings[number].source
        encodings: Sequence[str] = UTF8
        if isinstance(source, FilesSource):
            encodings = source.encodings
        elif isinstance(source, RowColumns):
            encodings = [source.encoding]
        return read(candidate.file, candidate.path, encodings, source.max_bytes)

    def _whole(self, place: Place, reading: Reading, modified: int) -> Document:
        number, path, _ = place
        return Document(
            id=self.store.put(reading.raw),
            source=self.listings[number].name,
            path=path,
            area=self._area(number, path),
            licence=self.listings[number].licence,
            why=self.listings[number].source.why,
            bytes=len(reading.raw),
            modified=modified,
            retrieved_at=0,  # of the whole source, known at the end
            encoding=reading.encoding,
            text=reading.text,
        )

    # ------------------------------------------------------------------------------- tables

    def tables(self) -> None:
        """Read every row of every table; the pools keep those they want."""
        for number, listing in enumerate(self.listings):
            for candidate in listing.candidates:
                if candidate.form:
                    self._table(number, candidate)

    def _table(self, number: int, candidate: Candidate) -> None:
        columns = self.listings[number].source
        assert isinstance(columns, RowColumns)
        pool, path = self.pools[number], candidate.path
        try:
            self._wanted(number, path)
            if not pool.share:
                raise Unusable(self._beyond(number), False)
            self.digests[number, path] = candidate.sha256 or _sha256(candidate)
            rows = read_rows(candidate.file, path, candidate.form, columns)
            for row, values in self._counted(path, rows):
                key = self.key(number, f"{path}#{row}")
                try:
                    self._wanted(number, f"{path}#{row}")
                    if isinstance(values, Unusable):
                        raise values
                    text = to_text(values, columns)
                except Unusable as error:
                    self.skip(number, f"{path}#{row}", error)
                    if error.fault:
                        self.bad_rows.add((self.listings[number].name, f"{path}#{row}"))
                    continue
                self.good[number, path] += 1
                if pool.wants(key):
                    document = self._row(number, candidate, row, text)
                    pool.add(key, (number, path, row), document)
            self.whole_tables += 1
        except Unusable as error:
            self.skip(number, path, error)

    def _counted(self, path: str, rows: Iterator[Any]) -> Iterator[Any]:
        for done, row in enumerate(rows):
            if done % 10_000 == 0:
                self.progress(f"reading {path}: row {done:,}")
            yield row

    def _row(self, number: int, candidate: Candidate, row: int, found: RowText) -> Document:
        listing, raw = self.listings[number], found.text.encode("utf-8")
        modified = candidate.modified_ns // 10**9 if found.modified is None else found.modified
        several = f"{listing.name}/" if len(self.listings) > 1 else ""
        return Document(
            id=hashlib.sha256(raw).hexdigest(),
            source=listing.name,
            path=f"{candidate.path}#{row}{found.place}",
            area=several + found.area if found.area else self._area(number, candidate.path),
            licence=found.licence or listing.licence,
            why=listing.source.why,
            bytes=len(raw),
            modified=modified,
            retrieved_at=0,
            encoding=candidate.form,
            text=found.text,
        )

    # ------------------------------------------------------------------------------ the rest

    def _area(self, number: int, path: str) -> str:
        name = self.listings[number].name if len(self.listings) > 1 else ""
        return _area(path, self._prefixes[number], name)

    def _beyond(self, number: int) -> str:
        """Say why something of a source is not asked for."""
        self.cut.add(self.listings[number].name)
        pool = self.pools[number]
        if not pool.share:
            return "weight 0 in collect.mix"
        if pool.bytes >= pool.budget:
            return "beyond what collect.mix asks for"
        return f"beyond limit = {self.config.limit}"

    def left_out(self, mixture: Mixture) -> list[Skipped]:
        """Return all that gave no document; rows beyond what was asked are counted by file."""
        taken = {entry.place for pool in self.pools for entry in pool.entries}
        kept = Counter((number, path) for number, path, _ in taken)
        skipped = list(self.skipped)
        for number, path, _ in self.read.keys() - taken:
            skipped.append(Skipped(self.listings[number].name, path, self._beyond(number)))
        for (number, path), good in self.good.items():
            beyond = good - kept[number, path]
            if beyond:
                reason = f"rows {self._beyond(number)} ({beyond} of {good})"
                skipped.append(Skipped(self.listings[number].name, path, reason))
        return skipped


def _sha256(candidate: Candidate) -> str:
    try:
        with open(candidate.file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise Unusable(f"unreadable: {error.strerror or error}", True) from error


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
    config: CollectConfig, reader: _Reader, mixture: Mixture, skipped: Sequence[Skipped]
) -> None:
    """Raise DataError for a source without text, or with too many faulty files and rows."""
    filled = {document.source for document in mixture.documents}
    rows_of: dict[str, list[Skipped]] = defaultdict(list)
    for row in skipped:
        rows_of[row.source].append(row)
    for listing in reader.listings:
        rows = rows_of[listing.name]
        cut = listing.name in reader.cut or listing.kind == "package" or not listing.candidates
        if listing.name not in filled and not cut:
            raise DataError(
                f"source {listing.name}: no text in {_count(len(listing.candidates), 'file')} of "
                f"{listing.root}: {_examples(rows)}"
            )
    if not mixture.documents:
        raise DataError(f"no text in any source: {_examples(skipped)}")
    _check_faults(config.max_faulty, reader, [row for row in skipped if row.fault])


def _check_faults(most: float, reader: _Reader, faults: Sequence[Skipped]) -> None:
    """Raise DataError where too large a share of the files, or of the rows, is faulty."""
    rows = [row for row in faults if (row.source, row.path) in reader.bad_rows]
    files = [row for row in faults if (row.source, row.path) not in reader.bad_rows]
    good_files = len(reader.read) + reader.whole_tables
    for bad, good, what in ((files, good_files, "file"), (rows, reader.good.total(), "row")):
        if len(bad) > most * (len(bad) + good):
            raise DataError(
                f"{len(bad)} of {_count(len(bad) + good, what)} {'is' if len(bad) == 1 else 'are'} "
                f"faulty, allowed is a share of {most:g}: {_examples(bad)}; repair them, leave "
                "them out by exclude, give their encodings, or raise collect.max_faulty"
            )


def _count(n: int, what: str) -> str:
    return f"1 {what}" if n == 1 else f"{n} {what}s"


def _examples(rows: Sequence[Skipped]) -> str:
    shown = "; ".join(f"{row.path} ({row.reason})" for row in rows[:3])
    return shown + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
