"""What the folder of runs holds, by stage folder: runs share stages, so each is read once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from gristmill import registry
from gristmill.artifacts import MANIFEST, read_json
from gristmill.data.table import connect, quote
from gristmill.errors import DataError
from gristmill.runs import Store
from gristmill.serving import request_log

HIDDEN = (".search/*/*", ".update/*", ".update/*/*")  # runs of a search and of updates
LOG = Path(".serve") / "requests.jsonl"  # below the folder of runs


@dataclass(frozen=True)
class RunRecord:
    """A run and the folders its stages lie in, by label."""

    folder: Path
    stages: dict[str, Path]

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def model(self) -> str:
        """sha256 of the deployed file, "" where there is none."""
        return str(self._output("11_deploy", "model.gguf").get("sha256", ""))

    @cached_property
    def sources(self) -> dict[str, dict[str, Any]]:
        """The record of every source by its name."""
        path = self.stages.get("01_collect")
        records = read_json(path / "sources.json") if path else []
        return {record["name"]: record for record in records}

    def manifest(self, label: str) -> dict[str, Any]:
        """Return the manifest of a stage, {} for one that is not done."""
        path = self.stages.get(label)
        return dict(read_json(path / MANIFEST)) if path else {}

    def _output(self, label: str, name: str) -> dict[str, Any]:
        return dict(self.manifest(label).get("outputs", {}).get(name, {}))


class Records:
    """All runs below one folder, the registry and the request log beside them."""

    def __init__(self, root: Path, log: Path | None = None) -> None:
        self.root, self.log = root, log or root / LOG
        hidden = sorted({p.parent for depth in HIDDEN for p in root.glob(f"{depth}/run.json")})
        searched = [run for run in hidden if not run.is_symlink()]  # not `latest`
        self.runs = [_record(run) for run in (*searched, *Store(root).runs())]

    @cached_property
    def promoted(self) -> list[registry.Entry]:
        """Promotions, oldest first."""
        return registry.entries(self.root)

    def answers(self, model: str) -> int:
        """Return how many requests in the log the model with this sha256 answered."""
        mark = f'"model": "{model}"'.encode("ascii")
        return sum(part.read_bytes().count(mark) for part in request_log.files(self.log))

    def by_folder(self, label: str, name: str) -> dict[Path, list[RunRecord]]:
        """Return the runs of every distinct folder of a stage that has the file `name`."""
        found: dict[Path, list[RunRecord]] = {}
        for run in self.runs:
            folder = run.stages.get(label)
            if folder is not None and (folder / name).is_file():
                found.setdefault(folder, []).append(run)
        return found


def select(
    files: Sequence[Path],
    columns: Iterable[str],
    condition: str = "true",
    values: Sequence[Any] = (),
) -> list[tuple[Any, ...]]:
    """Return (file, columns) of the rows of Parquet files that meet an SQL condition."""
    if not files:
        return []
    listed = ", ".join(quote(path) for path in files)
    wanted = ", ".join(("filename", *columns))  # each row begins with its file
    query = (
        f"SELECT {wanted} FROM read_parquet([{listed}], filename = true, union_by_name = true) "
        f"WHERE {condition}"
    )
    try:
        with connect() as connection:
            return connection.execute(query, list(values)).fetchall()
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise DataError(f"cannot read {files[0]} and {len(files) - 1} more: {first}") from error


def _record(run: Path) -> RunRecord:
    labels = read_json(run / "run.json")["stages"]
    stages = {x: (run / x).resolve() for x in labels if (run / x / MANIFEST).is_file()}
    return RunRecord(run, stages)
