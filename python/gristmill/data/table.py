"""Parquet tables through duckdb: the one place where columns meet files.

Columns are plain Python lists under a declared SQL schema, so that an empty table has types too and
two writes of the same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from gristmill.errors import DataError, StorageError

_NUMPY = {"BIGINT": np.int64, "DOUBLE": np.float64}  # everything else travels as object


def quote(path: Path | str) -> str:
    """Return `path` as an SQL string literal."""
    return "'" + str(path).replace("'", "''") + "'"


def connect() -> duckdb.DuckDBPyConnection:
    """Open an in-memory database that keeps row order on any number of threads."""
    connection = duckdb.connect(":memory:")
    connection.execute("SET preserve_insertion_order = true")
    return connection


def write_table(path: Path, schema: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> int:
    """Write rows (tuples in schema order) as zstd Parquet and return how many there were.

    schema maps column name to VARCHAR, BIGINT, DOUBLE or BOOLEAN. Raises StorageError when the disk
    refuses; an old file is then untouched.
    """
    table = [list(row) for row in rows]
    columns = list(zip(*table, strict=True)) if table else [() for _ in schema]
    if len(columns) != len(schema):
        raise ValueError(f"{path.name}: rows have {len(columns)} columns, schema has {len(schema)}")
    arrays = {}
    for (name, kind), values in zip(schema.items(), columns, strict=True):
        dtype = _NUMPY.get(kind, object)
        array = np.empty(len(values), dtype=dtype)
        array[:] = values
        arrays[name] = array
    casts = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in schema.items())
    with connect() as connection:
        connection.register("rows", arrays)
        form = "(FORMAT parquet, COMPRESSION zstd)"  # beside an old file, which it then replaces
        try:
            connection.execute(f"COPY (SELECT {casts} FROM rows) TO {quote(path)} {form}")
        except duckdb.IOException as error:
            first = str(error).splitlines()[0]
            raise StorageError(
                f"cannot write {path}: {first}; see that there is space, then run the same "
                "command again"
            ) from error
    return len(table)


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Read the named columns as a list of row tuples, in file order.

    Raises DataError when the file is missing, damaged or lacks a column.
    """
    names = ", ".join(f'"{name}"' for name in columns)
    try:
        with connect() as connection:
            return connection.execute(f"SELECT {names} FROM read_parquet({quote(path)})").fetchall()
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise DataError(
            f"cannot read {path}: {first}; run the stage that writes it again"
        ) from error
