"""Rows of jsonl, csv and parquet files: each is a document, or stands in the list of bad rows.

A row's path is `FILE#NUMBER`, where NUMBER is its line in jsonl and csv (from 1; in csv the line it
ends in) and its place in parquet (from 0), then `:ID` and `/PATH` where columns give them.
"""

from __future__ import annotations

import codecs
import csv
import importlib
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from gristmill.data import chat, licences
from gristmill.data.collect_settings import RowColumns
from gristmill.data.docstrings import read_docstrings
from gristmill.data.document import MESSAGES
from gristmill.data.reading import OPENERS, Unusable
from gristmill.errors import DataError

_LONGEST_LINE = 2**28  # bytes; a file without line ends is no jsonl
_FETCH = 1000  # rows of parquet in memory at once
_ENDINGS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
_KEEP = "surrogateescape"  # so that bytes that are no text spoil their own row alone
_KEPT = re.compile("[\udc80-\udcff]")
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowText:
    """What a row gives a document; None and "" where no column says it."""

    text: str
    place: str  # behind the number in the path
    area: str
    licence: str
    modified: int | None


def format_of(path: str) -> str:
    """Return jsonl, csv or parquet by a file's ending (that of a compression aside), or ""."""
    name = PurePosixPath(path.lower())
    if name.suffix in (".gz", ".bz2", ".xz", ".zst"):
        name = name.with_suffix("")
    return _ENDINGS.get(name.suffix, "")


def read_rows(
    file: Path, name: str, form: str, columns: RowColumns
) -> Iterator[tuple[int, Values | Unusable]]:
    """Yield (number, values) of each row, or why it cannot be read.

    Raises Unusable where the rest of the file cannot be read; DataError for a column that is not
    there, with those that are.
    """
    readers = {
        "jsonl": _jsonl, "csv": _csv, "parquet": _parquet, "docstrings": _docstrings
    }  # fmt: skip
    try:
        yield from readers[form](file, name, columns)
    except (EOFError, zlib.error, lzma.LZMAError, csv.Error) as error:
        raise Unusable(f"damaged: {error}", True) from error
    except OSError as error:
        raise Unusable(f"unreadable: {error.strerror or error}", True) from error


def _main(columns: RowColumns) -> list[str]:
    """Return the columns without which a row is nothing."""
    if columns.content == "text":
        return [columns.text_column]
    if columns.response_column:
        return [columns.prompt_column, columns.response_column]
    return [columns.messages_column]


def _wanted(columns: RowColumns) -> list[str]:
    """Return all columns that are named."""
    system = columns.system_column if columns.response_column else ""
    more = [system, columns.id_column, columns.path_column, columns.area_column]
    names = [*_main(columns), *more, columns.time_column, columns.licence_column]
    return list(dict.fromkeys(name for name in names if name))


def _check_columns(name: str, there: list[str], wanted: Iterable[str]) -> None:
    absent = [column for column in wanted if column not in there]
    if absent:
        raise DataError(
            f"{name} has no column {', '.join(map(repr, absent))}; its columns: "
            f"{', '.join(there) or 'none'}; name yours by text_column and the like"
        )


# -------------------------------------------------------------------------------- jsonl, csv


def _open(file: Path, name: str) -> IO[bytes]:
    suffix = name.lower().rpartition(".")[2]
    if suffix == "zst":
        return _open_zst(file)
    opener: Any = OPENERS.get(suffix, open)
    return cast(IO[bytes], opener(file, "rb"))


def _open_zst(file: Path) -> IO[bytes]:
    for module in ("compression.zstd", "zstandard"):  # Python 3.14; the package
        try:
            return cast(IO[bytes], importlib.import_module(module).open(file, "rb"))
        except ModuleNotFoundError:
            continue
    raise Unusable("zst needs Python 3.14 or the package zstandard; or unpack it: zstd -d", True)


def _jsonl(file: Path, name: str, columns: RowColumns) -> Iterator[tuple[int, Values | Unusable]]:
    first: list[str] = []
    unseen = set(_wanted(columns))  # a key may be absent in some rows, but not in all
    with _open(file, name) as stream:
        number = 0
        while line := stream.readline(_LONGEST_LINE):
            number += 1
            if number == 1:
                line = _without_mark(line)
            if len(line) >= _LONGEST_LINE:
                raise Unusable(f"line {number} is longer than {_LONGEST_LINE} bytes", True)
            if not line.strip():
                continue
            try:
                values = _object(line)
            except Unusable as bad:
                yield number, bad
                continue
            if not first:
                first = list(values)
                _check_columns(f"{name}, line {number},", first, _main(columns))
            if unseen:
                unseen -= values.keys()
            yield number, values
    if first:
        _check_columns(name, first, sorted(unseen))


def _without_mark(line: bytes) -> bytes:
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unusable("in UTF-16, jsonl is UTF-8: save it as that", True)
    return line.removeprefix(codecs.BOM_UTF8)


def _object(line: bytes) -> Values:
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Unusable(f"not UTF-8 (byte {error.start} of the line)", True) from None
    except (ValueError, RecursionError) as error:
        if not line.endswith(b"\n"):
            raise Unusable("half a last line: the file ends inside it", True) from None
        raise Unusable(f"not JSON: {error}", True) from None
    if not isinstance(values, dict):
        raise Unusable(f"not an object: {type(values).__name__}", True)
    return values


def _csv(file: Path, name: str, columns: RowColumns) -> Iterator[tuple[int, Values | Unusable]]:
    csv.field_size_limit(_LONGEST_LINE)
    tabs = ".tsv" in name.lower()
    delimiter = columns.delimiter or ("\t" if tabs else ",")
    with _open(file, name) as raw:
        marked = codecs.lookup(columns.encoding).name == "utf-8"
        encoding = "utf-8-sig" if marked else columns.encoding
        stream = io.TextIOWrapper(raw, encoding=encoding, errors=_KEEP, newline="")
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            _check_columns(name, header, _wanted(columns))
            twice = next((column for column in _wanted(columns) if header.count(column) > 1), None)
            if twice:
                raise DataError(f"{name} has two columns {twice!r}; give each its own name")
            yield from _cells(reader, header, columns.encoding)
        except UnicodeError:
            said = f"not text in {columns.encoding} (line {reader.line_num + 1}); give encoding"
            raise Unusable(said, True) from None


def _cells(
    reader: Any, header: list[str], encoding: str
) -> Iterator[tuple[int, Values | Unusable]]:
    while True:
        before = reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            said = f"not CSV: {error}{_swallowed(before, reader.line_num)}"
            yield reader.line_num, Unusable(said, True)
            continue
        if cells and len(cells) != len(header):
            said = f"{len(cells)} cells, the header has {len(header)}"
            yield reader.line_num, Unusable(said + _swallowed(before, reader.line_num), True)
        elif any(_KEPT.search(cell) for cell in cells):
            yield reader.line_num, Unusable(f"not text in {encoding}", True)
        elif cells:
            yield reader.line_num, dict(zip(header, cells, strict=True))


def _swallowed(before: int, end: int) -> str:
    """Say which lines one bad row took with it."""
    return f" (lines {before + 1} to {end} in one: a quote is open)" if end > before + 1 else ""


def _docstrings(
    file: Path, name: str, columns: RowColumns
) -> Iterator[tuple[int, Values | Unusable]]:
    yield from read_docstrings(file, name, columns.content == "messages")


# ----------------------------------------------------------------------------------- parquet


def _parquet(file: Path, name: str, columns: RowColumns) -> Iterator[tuple[int, Values | Unusable]]:
    import duckdb

    from gristmill.data.table import connect, quote

    source = f"read_parquet({quote(file)}, file_row_number = true)"
    wanted = _wanted(columns)
    try:
        with connect() as connection:
            described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
            there = [str(row[0]) for row in described if row[0] != "file_row_number"]
            _check_columns(name, there, wanted)
            names = ", ".join('"' + column.replace('"', '""') + '"' for column in wanted)
            connection.execute("SET threads = 1")  # each thread holds a row group in memory
            found = connection.execute(f"SELECT file_row_number, {names} FROM {source}")
            while rows := found.fetchmany(_FETCH):
                for number, *cells in rows:
                    yield int(number), dict(zip(wanted, cells, strict=True))
    except duckdb.Error as error:
        raise Unusable(f"no Parquet: {str(error).splitlines()[0]}", True) from error


# ------------------------------------------------------------------------------ row to document


def to_text(values: Values, columns: RowColumns) -> RowText:
    """Return what a row gives a document; raises Unusable with the reason where it gives none."""
    text = _text(values, columns) if columns.content == "text" else _messages(values, columns)
    if not text:
        raise Unusable("empty", False)
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise Unusable("half a character (a lone surrogate)", True) from None
    if size > columns.max_bytes:
        raise Unusable(f"larger than {columns.max_bytes} bytes", False)
    licence = _said(values, columns.licence_column)
    if columns.licence_column:
        if not licence:
            raise Unusable("no licence in its column", False)
        licence = licences.normalise(licence) or licence
    if columns.allow:
        refusal = licences.refusal(licence, columns.allow)
        if refusal:
            raise Unusable(refusal, False)
    area = re.sub(r"[\x00-\x1f\x7f]", "", _said(values, columns.area_column))[:80]
    return RowText(text, _place(values, columns), area, licence, _time(values, columns))


def _text(values: Values, columns: RowColumns) -> str:
    value = _value(values, columns.text_column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unusable(f"{columns.text_column} is {type(value).__name__}, not text", True)
    return value


def _value(values: Values, column: str) -> Any:
    if column not in values:
        raise Unusable(f"no key {column!r}", True)
    return values[column]


def _said(values: Values, column: str) -> str:
    """Return a column's value as text; "" where there is no column or no value."""
    value = values.get(column) if column else None
    return "" if value is None else str(value).strip()


def _messages(values: Values, columns: RowColumns) -> str:
    """Return {"messages": [...]} as JSON: what chat.render takes."""
    if columns.response_column:
        told = [("system", columns.system_column), ("user", columns.prompt_column)]
        told.append(("assistant", columns.response_column))
        given = [
            {"role": role, "content": _value(values, column)}
            for role, column in told
            if column and (role != "system" or values.get(column))
        ]
        if not all(isinstance(m["content"], str) and m["content"].strip() for m in given):
            raise Unusable("a prompt or a response without text", True)
    else:
        given = [_message(m) for m in _list(_value(values, columns.messages_column))]
    try:
        chat.check(given)
    except DataError as error:
        raise Unusable(f"no conversation: {error}", True) from None
    return json.dumps({"messages": given}, ensure_ascii=False)


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):  # a column of csv
        try:
            value = json.loads(value)
        except ValueError as error:
            raise Unusable(f"messages are not JSON: {error}", True) from None
    if not isinstance(value, list):
        raise Unusable(f"messages are {type(value).__name__}, not a list", True)
    return value


def _message(given: Any) -> dict[str, str]:
    """Return a message from role and content, or from ShareGPT's from and value."""
    if not isinstance(given, Mapping):
        raise Unusable(f"a message is {type(given).__name__}, not a table", True)
    role = given.get("role", given.get("from"))
    return {
        "role": _ROLES.get(str(role), str(role)),
        "content": given.get("content", given.get("value")),  # chat.check says what is wrong
    }


def _place(values: Values, columns: RowColumns) -> str:
    identity = re.sub(r"\W", "_", _said(values, columns.id_column))[:80]
    parts = [p for p in _said(values, columns.path_column).split("/") if p not in ("", ".", "..")]
    path = re.sub(r"[\x00-\x1f\x7f#]", "_", "/".join(parts))[-200:].lstrip("/")
    suffix = MESSAGES if columns.content == "messages" else "" if path else columns.suffix
    return (f":{identity}" if identity else "") + (f"/{path}" if path else "") + suffix


def _time(values: Values, columns: RowColumns) -> int | None:
    """Return the time as unix seconds; a time without zone is UTC."""
    if not columns.time_column or values.get(columns.time_column) in (None, ""):
        return None
    value = values[columns.time_column]
    try:
        if isinstance(value, str):
            number = re.fullmatch(r"\d{1,11}(\.\d*)?", value.strip())
            value = float(value) if number else datetime.fromisoformat(value.strip())
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if isinstance(value, datetime):
            value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        seconds = int(value)
    except (ValueError, TypeError, OverflowError):
        raise Unusable(f"{columns.time_column} is no time: {value!r}", True) from None
    if not 0 <= seconds < 2**33:
        raise Unusable(f"{columns.time_column} is no time after 1970: {seconds}", True)
    return seconds
