"""What sources.json says of each source: enough for a datasheet, with no field left empty."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.artifacts import sha256_json
from gristmill.data.collect_settings import FilesSource, HttpSource, RowsSource
from gristmill.data.document import Document
from gristmill.data.sources import Listing, Skipped


def describe(
    listings: Sequence[Listing],
    documents: Sequence[Document],
    skipped: Sequence[Skipped],
    digests: Mapping[tuple[int, str], str],
) -> list[dict[str, Any]]:
    """Return one record per source, in order; digests: sha256 of tables by (number, path)."""
    of_source: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        of_source[document.source].append(document)
    left_out: Counter[str] = Counter()
    for row in skipped:
        left_out[row.source] += row.count
    return [
        {
            **_source(listing, of_source[listing.name]),
            "tables": {path: digest for (n, path), digest in digests.items() if n == number},
            "origins": listing.origins,
            "skipped": left_out[listing.name],
        }
        for number, listing in enumerate(listings)
    ]


def _source(listing: Listing, documents: list[Document]) -> dict[str, Any]:
    times = [document.modified for document in documents]
    return {
        "name": listing.name,
        "use": listing.source.use,
        "path": _place(listing),
        "kind": listing.kind,
        "revision": listing.revision or "none",
        "times": listing.times,
        "licence": listing.licence,
        "licence_from": listing.licence_from,
        "why": listing.source.why,
        "retrieved_at": documents[0].retrieved_at if documents else None,
        "oldest": min(times, default=None),
        "newest": max(times, default=None),
        "files": len(documents),
        "bytes": sum(document.bytes for document in documents),
        "characters": sum(len(document.text) for document in documents),
        "licences": dict(sorted(Counter(d.licence for d in documents).items())),
        "sha256": sha256_json([(document.path, document.id) for document in documents]),
    }


def _place(listing: Listing) -> str:
    """Return where a source is as the configuration says it: no folder of this machine alone."""
    if isinstance(listing.source, HttpSource):
        return " ".join(listing.source.urls)
    if isinstance(listing.source, FilesSource | RowsSource):
        return listing.source.path
    if listing.kind == "package":
        return f"site-packages, {listing.name} {listing.revision}"
    return f"library of Python {listing.revision}"
