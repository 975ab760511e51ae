"""How often a sealed split has been opened: counted before it is read, so a killed test counts too.

Each test keeps the count of its own openings in its folder, which outlives it; together with the
other tests of the same split this gives the number that the report names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gristmill.artifacts import MANIFEST, fsync_folder, read_json, write_json

ACCESS = "access.json"


def open_sealed(split: Path, out: Path, others: Iterable[Path]) -> int:
    """Count one more opening of `split` in out/access.json and return how many there are in all.

    Call it before reading: when it returns, the count is on the disk. `others` are folders of
    tests, finished or not; those of another split do not count. access.json has split (its digest,
    None for a split without manifest), here (openings by this test), earlier (a row per other test:
    key, begun, summary, times) and opened (in all). Raises StorageError; then nothing may be read.
    """
    digest = read_json(split / MANIFEST)["digest"] if (split / MANIFEST).is_file() else None
    here = 1 + _times(out, digest)
    earlier = [] if digest is None else [r for o in others if o != out for r in _row(o, digest)]
    earlier.sort(key=lambda row: (row["begun"] is None, row["begun"], row["key"]))
    opened: int = here + sum(row["times"] for row in earlier)
    record = {"split": digest, "here": here, "earlier": earlier, "opened": opened}
    write_json(out / ACCESS, record)
    fsync_folder(out.parent)
    return opened


def _times(folder: Path, digest: str | None) -> int:
    """Return how often the test in `folder` says it has opened the split."""
    path = folder / ACCESS
    record = read_json(path) if path.is_file() else {}
    return int(record["here"]) if record.get("split", "") == digest else 0


def _row(folder: Path, digest: str) -> list[dict[str, Any]]:
    """Return the one row of a test that opened the split; none for another."""
    times = _times(folder, digest)
    if not (folder / MANIFEST).is_file():
        key = folder.name.partition(".")[0].rpartition("-")[2]
        row = {"key": key, "begun": None, "summary": "not finished", "times": times}
        return [row] if times else []
    manifest = read_json(folder / MANIFEST)
    if manifest["depends"]["inputs"].get("split") != digest:
        return []
    row = {name: manifest[name] for name in ("key", "begun", "summary")}
    return [{**row, "times": max(1, times)}]
