"""A receipt of a bench: where, when and with what it ran, and its rows, as one JSON file.

Its form is published: schema.json.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill import machine
from gristmill.backend import _C

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = 1  # of schema.json
SHOWN = (str, int, float, list)  # of settings: a path says where, and no figure depends on it


class Receipt:
    """Collects rows; the file is written anew with each, so an interrupted run keeps its rows.

    `settings` are the bench's options, `peers` names and versions. Without a path nothing happens.
    """

    def __init__(
        self, path: Path | None, bench: str, settings: Mapping[str, Any], peers: Mapping[str, str]
    ) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.about = {
            "schema": SCHEMA,
            "bench": bench,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "commit": commit(),
            "machine": {**machine.describe(), "table": _C.table(), "threads": _C.threads()},
            "peers": dict(peers),
            "settings": {k: v for k, v in settings.items() if isinstance(v, SHOWN) and v != []},
        }

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep one row."""
        self.rows.append(dict(row))
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**self.about, "rows": self.rows}, indent=1)
            self.path.write_text(text + "\n", encoding="utf-8")


def commit() -> dict[str, Any] | None:
    """Hash of the checked-out commit and whether tracked files differ; None outside a clone."""
    if not (ROOT / "csrc").is_dir():
        return None  # an installed package may lie inside somebody else's clone
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"hash": head, "changed": bool(changed)}


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
