"""The quality report of collected documents, and the schema every one of them must keep."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.data.collecting import Collected
from gristmill.data.document import Document, suffix_of
from gristmill.data.store import Store
from gristmill.data.table import connect, quote

# rule -> condition in SQL that a row of documents.parquet breaks it
SCHEMA_RULES = {
    "id is a sha256": "NOT regexp_full_match(id, '[0-9a-f]{64}')",
    "path is relative and not empty": "path = '' OR path LIKE '/%' OR contains(path, '../')",
    "source, area and encoding are given": "source = '' OR area = '' OR encoding = ''",
    "licence and why are given": "trim(licence) = '' OR trim(why) = ''",
    "bytes are positive": "bytes <= 0",
    "text is not empty": "text = ''",
    "times are in order": "modified < 0 OR retrieved_at < modified",
    "source and path are unique": "(SELECT count(*) FROM documents AS o "
    "WHERE o.source = documents.source AND o.path = documents.path) > 1",
}
EXAMPLES = 5
EDGES = [0, *(2**power for power in range(6, 21))]  # of the histogram of lengths, in characters


def check_schema(parquet: Path, store: Store) -> list[dict[str, Any]]:
    """Return per rule the number of rows that break it, with examples of their paths.

    A null in any column breaks the rule of that name. A file must have its raw bytes in the store;
    a row of a table has its bytes in the documents themselves, under its id.
    """
    rows = []
    with connect() as connection:
        connection.execute(f"CREATE VIEW documents AS FROM read_parquet({quote(parquet)})")
        columns = [name for name, *_ in connection.execute("DESCRIBE documents").fetchall()]
        nulls = " OR ".join(f'"{name}" IS NULL' for name in columns)
        for rule, broken in {"nothing is missing": nulls, **SCHEMA_RULES}.items():
            found = connection.execute(f"SELECT path FROM documents WHERE {broken}").fetchall()
            rows.append(_rule(rule, [str(path) for (path,) in found]))
        files = "SELECT id, path FROM documents WHERE sha256(text) != id OR NOT contains(path, '#')"
        pairs = connection.execute(files).fetchall()
    present = set(store.digests())
    lost = [path for digest, path in pairs if digest not in present]
    return [*rows, _rule("raw bytes are in the store", lost)]


def _rule(rule: str, paths: list[str]) -> dict[str, Any]:
    return {"rule": rule, "violations": len(paths), "examples": paths[:EXAMPLES]}


def describe(collected: Collected) -> dict[str, Any]:
    """Return counts, encodings, lengths, exact duplicates and everything that was skipped."""
    documents = collected.documents
    lengths = [len(document.text) for document in documents]
    reasons: Counter[str] = Counter()
    for row in collected.skipped:
        reasons[reason_of(row.reason)] += row.count
    return {
        "documents": len(documents),
        "bytes": sum(document.bytes for document in documents),
        "characters": sum(lengths),
        "lines": sum(document.text.count("\n") + 1 for document in documents),
        "by": {
            "source": _counts(document.source for document in documents),
            "suffix": _counts(suffix_of(document.path) or "none" for document in documents),
            "encoding": _counts(document.encoding for document in documents),
            "area": _counts(document.area for document in documents),
        },
        "lengths": _lengths(lengths),
        "duplicates": exact_duplicates(documents),
        "skipped": {
            "files": sum(row.count for row in collected.skipped),
            "faulty": sum(row.fault for row in collected.skipped),
            "by_reason": _ranked(reasons),
            "rows": [
                {"source": r.source, "path": r.path, "reason": r.reason, "faulty": r.fault}
                for r in collected.skipped
            ],
        },
        "notes": collected.notes,
    }


def reason_of(reason: str) -> str:
    """Return a reason without its particulars: 'unreadable: Permission denied' is 'unreadable'."""
    return reason.partition(":")[0].partition(" (")[0]


def _counts(values: Iterable[str]) -> dict[str, int]:
    return _ranked(Counter(values))


def _ranked(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _lengths(lengths: Sequence[int]) -> Mapping[str, Any]:
    """Return quantiles and a histogram (last bin open) of lengths in characters."""
    counts, _ = np.histogram(np.minimum(lengths, EDGES[-1]), bins=[*EDGES, 2**62])
    at = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    values = np.quantile(lengths, at) if lengths else [0.0] * len(at)
    return {
        "unit": "characters",
        "quantiles": {f"{q:g}": float(value) for q, value in zip(at, values, strict=True)},
        "edges": EDGES,
        "counts": counts.tolist(),
    }


def exact_duplicates(documents: Sequence[Document]) -> dict[str, Any]:
    """Return how many files repeat the bytes of another one, with the largest groups."""
    groups = defaultdict(list)
    for document in documents:
        groups[document.id].append(f"{document.source}/{document.path}")
    several = sorted((g for g in groups.values() if len(g) > 1), key=lambda g: (-len(g), g))
    return {
        "groups": len(several),
        "files": sum(len(group) for group in several),
        "examples": several[:EXAMPLES],
    }
