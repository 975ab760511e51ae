"""The audit as a file: a CSV that a person fills in, with what is wrong in it named by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from gristmill.data.annotation import LABELS, QUALITY, Label
from gristmill.data.document import Document
from gristmill.errors import DataError

COLUMNS = ("id", "path", "label", "annotator", "time", "guideline")
NEEDED = ("id", "label", "annotator", "time", "guideline")


def empty_audit(sample: Sequence[Document], guideline: str) -> str:
    """Return the CSV to be filled in: a row per document; label, annotator and time are empty.

    guideline: the sha256 of the text that the labels are to follow.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((d.id, d.path, "", "", "", guideline) for d in sample)
    return stream.getvalue()


def read_audit(path: Path, guideline: str) -> list[Label]:
    """Read labels by people; an empty label means not done yet. guideline: its sha256.

    Raises DataError naming the line for a missing column, an unknown label, a label without
    annotator, a time that is no unix time in seconds, or a label given by another guideline.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read annotate.audit {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{path} lacks the columns {', '.join(missing)}; it needs {', '.join(NEEDED)}"
        )
    rows = []
    for row in reader:
        given = {name: (row.get(name) or "").strip() for name in COLUMNS}
        where = f"{path} line {reader.line_num}"
        _check(given, where, guideline)
        who = (given["annotator"], int(given["time"]) if given["label"] else 0)
        rows.append(
            Label(given["id"], given["path"], QUALITY, given["label"], *who, "human", guideline)
        )
    return rows


def _check(given: dict[str, str], where: str, guideline: str) -> None:
    if not given["label"]:
        return
    if given["label"] not in LABELS:
        raise DataError(
            f"{where}: label {given['label']!r}; allowed: {', '.join(LABELS)}, or empty"
        )
    if not given["annotator"]:
        raise DataError(f"{where}: a label without annotator; write who gave it")
    if not (given["time"].isascii() and given["time"].isdigit()):
        raise DataError(f"{where}: time {given['time']!r}; allowed: unix seconds (`date +%s`)")
    if given["guideline"] != guideline:
        raise DataError(
            f"{where}: labelled by guideline {given['guideline'][:12]!r}, the guideline now is "
            f"{guideline[:12]!r}; label the files of the new audit_sample.csv, or set "
            "annotate.guideline to the text that was followed"
        )
