"""What the test measured of every file, kept so that another model can be compared on the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gristmill.artifacts import sha256_bytes, sha256_json
from gristmill.data.document import Document
from gristmill.data.table import read_table, write_table
from gristmill.evaluation.bits import Bits

DOCUMENTS = "documents.parquet"
BITS = "bits"  # the column of the tested model; the others are methods it is compared with
Values = npt.NDArray[np.float64]


def split_digest(documents: Sequence[Document]) -> str:
    """Return one digest for the texts of a split; tokens, labels and times do not show in it."""
    texts = (sha256_bytes(d.text.encode("utf-8")) for d in documents)
    return sha256_json(sorted([d.id, text] for d, text in zip(documents, texts, strict=True)))


@dataclass(frozen=True)
class Measured:
    """Files in order: their ids and bytes (n,), and bits (n,) per method."""

    ids: list[str]
    bytes: npt.NDArray[np.int64]
    bits: dict[str, Values]

    def take(self, ids: Sequence[str]) -> Measured:
        """Return some files in the order given."""
        place = {id: i for i, id in enumerate(self.ids)}
        at = [place[id] for id in ids]
        return Measured(list(ids), self.bytes[at], {k: v[at] for k, v in self.bits.items()})


def write_measured(path: Path, documents: Sequence[Document], columns: Mapping[str, Bits]) -> None:
    """Write id, path, bytes and a column of bits per method; raises StorageError."""
    schema = {"id": "VARCHAR", "path": "VARCHAR", "bytes": "BIGINT"}
    schema |= dict.fromkeys(columns, "DOUBLE")
    sizes = columns[BITS].bytes
    listed = zip(documents, sizes, *(c.bits for c in columns.values()), strict=True)
    write_table(path, schema, ((d.id, d.path, *rest) for d, *rest in listed))


def read_measured(path: Path, methods: Sequence[str]) -> Measured:
    """Read it back; raises DataError where the file or a column is missing."""
    rows = read_table(path, ["id", "bytes", *methods])
    bits = {name: np.array([row[2 + i] for row in rows]) for i, name in enumerate(methods)}
    return Measured([row[0] for row in rows], np.array([row[1] for row in rows], np.int64), bits)
