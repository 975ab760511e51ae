"""Reading named evaluation sets: the text of every example, and where it stands."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from gristmill.data.prose_settings import EvaluationSet
from gristmill.data.reading import Unusable, decompress
from gristmill.data.table import connect, quote
from gristmill.errors import DataError

_MOST = 2**30  # bytes of a file
_KINDS = (".jsonl", ".json", ".parquet", ".txt")


@dataclass(frozen=True, slots=True)
class Example:
    """One example of a set: `place` is its file and line, row or paragraph, from 1."""

    set: str
    place: str
    text: str


def files_of(given: EvaluationSet) -> list[Path]:
    """Return the files of a set in order; raises DataError where there is none."""
    path = os.path.expanduser(given.path)
    found = [path] if os.path.isfile(path) else sorted(glob.glob(path, recursive=True))
    files = [Path(name) for name in found if os.path.isfile(name)]
    if not files:
        raise DataError(
            f"evaluation set {given.name}: no file at {given.path}; a set that is not there cannot "
            "be kept out of training: give its path, or take it out of the clean step"
        )
    return files


def read_set(given: EvaluationSet) -> list[Example]:
    """Return all examples of a set; raises DataError where it is missing, damaged or empty."""
    examples = []
    for file in files_of(given):
        for number, text in _texts(given, file):
            if text.strip():
                examples.append(Example(given.name, f"{file.name}:{number}", text))
    if not examples:
        raise DataError(f"evaluation set {given.name}: no example with text in {given.path}")
    return examples


def _texts(given: EvaluationSet, file: Path) -> Iterator[tuple[int, str]]:
    name = file.name.lower()
    for packed in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(packed)
    kind = next((kind for kind in _KINDS if name.endswith(kind)), "")
    if kind == ".parquet":
        return _rows(given, file)
    if not kind:
        raise DataError(
            f"evaluation set {given.name}: {file} is none of {', '.join(_KINDS)} (by its name)"
        )
    text = _read(given, file)
    if kind == ".txt":  # examples are paragraphs
        return enumerate((p for p in text.replace("\r\n", "\n").split("\n\n") if p.strip()), 1)
    return _objects(given, file, text)


def _read(given: EvaluationSet, file: Path) -> str:
    try:
        return decompress(file.read_bytes(), file.name, _MOST).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or str(error)
    except Unusable as error:
        reason = error.reason
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start})"
    raise DataError(f"evaluation set {given.name}: cannot read {file}: {reason}")


def _objects(given: EvaluationSet, file: Path, text: str) -> Iterator[tuple[int, str]]:
    """One JSON object per line, or one list of objects."""
    lines: Iterable[tuple[int, Any]]
    try:
        if text.lstrip().startswith("["):
            lines = enumerate(json.loads(text), 1)
        else:
            split = enumerate(text.split("\n"), 1)
            lines = [(number, json.loads(line)) for number, line in split if line.strip()]
    except ValueError as error:
        raise DataError(f"evaluation set {given.name}: {file} is not JSON: {error}") from None
    for number, value in lines:
        yield number, _joined(given, f"{file}:{number}", value)


def _rows(given: EvaluationSet, file: Path) -> Iterator[tuple[int, str]]:
    try:
        with connect() as connection:
            found = connection.execute(f"SELECT * FROM read_parquet({quote(file)})")
            names = [column[0] for column in found.description or ()]
            rows = found.fetchall()
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise DataError(f"evaluation set {given.name}: cannot read {file}: {first}") from None
    for number, row in enumerate(rows, 1):
        yield number, _joined(given, f"{file}:{number}", dict(zip(names, row, strict=True)))


def _joined(given: EvaluationSet, place: str, value: Any) -> str:
    """Return the text of the fields that are named, or all text in the example."""
    if isinstance(value, dict) and given.fields:
        absent = [field for field in given.fields if field not in value]
        if absent:
            raise DataError(
                f"evaluation set {given.name}: {place} has no field {', '.join(absent)}; it has "
                f"{', '.join(map(str, value)) or 'none'}"
            )
        value = [value[field] for field in given.fields]
    return "\n".join(_strings(value))


def _strings(value: Any) -> Sequence[str]:
    """Return every text inside a value, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for part in value for text in _strings(part)]
    return []
