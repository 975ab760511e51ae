"""Gathering: files and rows of all listings into pools, and why the others gave no document."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from gristmill.data import git, mixing
from gristmill.data.collect_settings import CollectConfig, FilesSource, RowColumns
from gristmill.data.counter import string_hash
from gristmill.data.document import Document
from gristmill.data.excluding import REASON, excluded
from gristmill.data.mixing import Mixture, Place, Pool
from gristmill.data.reading import Reading, Unusable, read
from gristmill.data.rows import RowText, read_rows, to_text
from gristmill.data.sources import Candidate, Listing, Skipped
from gristmill.data.store import Store

UTF8 = ("utf-8",)


class Gathering:
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
        times = [commit_times(listing) for listing in self.listings]
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
                name = self.listings[number].name
                skipped.append(Skipped(name, path, reason, count=beyond))
        return skipped


def _sha256(candidate: Candidate) -> str:
    try:
        with open(candidate.file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise Unusable(f"unreadable: {error.strerror or error}", True) from error


def commit_times(listing: Listing) -> dict[str, int]:
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
