"""How often a sealed split has been opened: every evaluation of it that was ever finished here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gristmill.artifacts import read_json

MANIFEST = "manifest.json"


def earlier_openings(split: Path, others: Iterable[Path]) -> list[dict[str, Any]]:
    """Return the evaluations among the finished stage folders `others` that read this split.

    A folder counts when its manifest names the digest of `split` as input; each gives {key, begun,
    summary}, oldest first. Where the split has no manifest (a library call) there are none.
    """
    if not (split / MANIFEST).is_file():
        return []
    digest = read_json(split / MANIFEST)["digest"]
    found = []
    for folder in others:
        if (folder / MANIFEST).is_file():
            manifest = read_json(folder / MANIFEST)
            if manifest["depends"]["inputs"].get("split") == digest:
                found.append({name: manifest[name] for name in ("key", "begun", "summary")})
    return sorted(found, key=lambda entry: (entry["begun"], entry["key"]))
