"""Collect: from sources to documents, with every file and row that gives none recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gristmill.artifacts import sha256_json
from gristmill.data import mixing, remote, source_facts
from gristmill.data.collect_settings import CollectConfig, HttpSource
from gristmill.data.document import Document
from gristmill.data.gathering import Gathering
from gristmill.data.mixing import Mixture
from gristmill.data.sources import Fetch, Listing, Skipped, downloads_of, list_sources
from gristmill.data.store import Store
from gristmill.errors import DataError


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
    reader = Gathering(config, listings, store, seed, progress)
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


def _place(row: Skipped) -> tuple[str, str]:
    return row.source, row.path


def _dated(documents: list[Document]) -> list[Document]:
    """Set `retrieved_at` to the newest time in the document's source."""
    newest: dict[str, int] = {}
    for document in documents:
        newest[document.source] = max(newest.get(document.source, 0), document.modified)
    return [replace(d, retrieved_at=newest[d.source]) for d in documents]


def _check(
    config: CollectConfig, reader: Gathering, mixture: Mixture, skipped: Sequence[Skipped]
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


def _check_faults(most: float, reader: Gathering, faults: Sequence[Skipped]) -> None:
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
