"""The row that travels from collect to split, and the row that says why another one did not.

A document is one whole file, or one row of a jsonl, csv or parquet file: then its path is
`FILE#ROW` and more, and its id is the sha256 of its text. `retrieved_at` is the state of its source
(newest modification time in it), not the clock of the run: collecting the same bytes twice must
give the same files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path, PurePosixPath

from gristmill.data.table import read_table, write_table

COMPRESSED = (".gz", ".bz2", ".xz")
MESSAGES = ".messages"  # ending of a row that is a conversation, {"messages": [...]} as JSON
_ROW = re.compile(r"#\d+(?::\w*)?(?=$|[./])")


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its origin.

    Times are unix seconds; `bytes` counts the raw (maybe compressed) file.
    """

    id: str  # sha256 of the raw bytes; of a row: of its text
    source: str
    path: str  # relative to the source, '/' separated
    area: str
    licence: str
    why: str
    bytes: int
    modified: int
    retrieved_at: int
    encoding: str
    text: str
    cluster: int = -1  # near-duplicate cluster, set by clean


@dataclass(frozen=True, slots=True)
class Removal:
    """One row that a step took out: `value` broke `threshold` of `rule`."""

    id: str
    path: str
    source: str
    step: str
    rule: str
    value: str
    threshold: str


_SQL = {int: "BIGINT", str: "VARCHAR", "int": "BIGINT", "str": "VARCHAR"}
DOCUMENT_SCHEMA = {f.name: _SQL[f.type] for f in fields(Document)}
REMOVAL_SCHEMA = {f.name: "VARCHAR" for f in fields(Removal)}


def write_documents(path: Path, documents: Iterable[Document], *, cluster: bool = True) -> int:
    """Write documents as Parquet (`cluster` only after clean) and return their number."""
    schema = dict(DOCUMENT_SCHEMA)
    if not cluster:
        del schema["cluster"]
    width = len(schema)
    return write_table(path, schema, (astuple(d)[:width] for d in documents))


def read_documents(path: Path, *, cluster: bool = True) -> list[Document]:
    """Read what `write_documents` wrote. Raises DataError when the file is missing or damaged."""
    columns = [name for name in DOCUMENT_SCHEMA if cluster or name != "cluster"]
    return [Document(*row) for row in read_table(path, columns)]


def write_removals(path: Path, removals: Iterable[Removal]) -> int:
    """Write removed rows as Parquet and return their number."""
    return write_table(path, REMOVAL_SCHEMA, (astuple(r) for r in removals))


def read_removals(path: Path) -> list[Removal]:
    """Read what `write_removals` wrote. Raises DataError when the file is missing or damaged."""
    return [Removal(*row) for row in read_table(path, list(REMOVAL_SCHEMA))]


def suffix_of(path: str) -> str:
    """Return the lower-case file suffix below any compression suffix: 'a/b.PY.gz' -> '.py'.

    Of a row it is that of the path its columns give: 'a.jsonl.gz#12/b.py' -> '.py'.
    """
    row = _ROW.search(path)
    name = PurePosixPath("row" + path[row.end() :] if row else path)
    if name.suffix.lower() in COMPRESSED:
        name = name.with_suffix("")
    return name.suffix.lower()


def is_chat(path: str) -> bool:
    """Say whether a document is a conversation: its text is JSON with messages."""
    return path.endswith(MESSAGES)


def is_python(path: str) -> bool:
    """Say whether the file is Python source by its name."""
    return suffix_of(path) in (".py", ".pyi", ".pyw")
