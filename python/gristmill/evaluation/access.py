"""How often a sealed split has been opened: counted before it is read, so a killed test counts too.

Each test keeps the count of its own openings in its folder, which outlives it; together with the
other tests of the same documents this gives the number that the report names. Another tokenizer or
model changes nothing of what has been seen, so the documents count and not the split's folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gristmill.artifacts import MANIFEST, fsync_folder, read_json, sha256_json, write_json
from gristmill.data.table import read_table

ACCESS = "access.json"


def open_sealed(split: Path, out: Path, others: Iterable[Path]) -> int:
    """Count one more opening of `split` in out/access.json and return how many there are in all.

    Call it before reading: when it returns, the count is on the disk; of the documents only their
    ids were read. `others` are folders of tests, finished or not; those of other documents do not
    count. access.json has documents (sha256 of their ids), split (the folder's digest, None without
    manifest), here (openings by this test), earlier (a row per other test: key, begun, summary,
    times) and opened (in all). Raises StorageError, DataError; then nothing may be read.
    """
    ids = sorted(id for (id,) in read_table(split / "test" / "documents.parquet", ["id"]))
    documents = sha256_json(ids)
    digest = read_json(split / MANIFEST)["digest"] if (split / MANIFEST).is_file() else None
    here = 1 + _times(out, documents)
    earlier = [row for other in others if other != out for row in _row(other, documents, digest)]
    earlier.sort(key=lambda row: (row["begun"] is None, row["begun"], row["key"]))
    opened: int = here + sum(row["times"] for row in earlier)
    counted = {"here": here, "earlier": earlier, "opened": opened}
    write_json(out / ACCESS, {"documents": documents, "split": digest, **counted})
    fsync_folder(out.parent)
    return opened


def _times(folder: Path, documents: str) -> int:
    """Return how often the test in `folder` says it has opened these documents."""
    path = folder / ACCESS
    record = read_json(path) if path.is_file() else {}
    return int(record["here"]) if record.get("documents") == documents else 0


def _row(folder: Path, documents: str, digest: str | None) -> list[dict[str, Any]]:
    """Return the one row of a test that opened the documents; none for another."""
    times = _times(folder, documents)
    if not (folder / MANIFEST).is_file():
        key = folder.name.partition(".")[0].rpartition("-")[2]
        row = {"key": key, "begun": None, "summary": "not finished", "times": times}
        return [row] if times else []
    manifest = read_json(folder / MANIFEST)
    same = digest is not None and manifest["depends"]["inputs"].get("split") == digest
    if not (times or same):
        return []
    row = {name: manifest[name] for name in ("key", "begun", "summary")}
    return [{**row, "times": max(1, times)}]
