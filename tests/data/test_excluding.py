"""collect.exclude: files and rows left out by SOURCE/PATH, the sample of the others unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

from gristmill.data.collect_settings import CollectConfig, FilesSource, RowsSource
from gristmill.data.collecting import Collected, collect
from gristmill.data.excluding import REASON, excluded, literal
from gristmill.data.store import Store
from gristmill.errors import ConfigError


def gather(root: Path, *exclude: str, limit: int = 0) -> Collected:
    said = {"licence": "MIT", "why": "test"}
    files = FilesSource(use="files", path=str(root), git=False, include=["*.py"], **said)
    rows = RowsSource(use="jsonl", path=str(root / "rows.jsonl"), name="table", **said)
    config = CollectConfig(source=[files, rows], limit=limit, exclude=list(exclude))
    return collect(config, Store(root.parent / "raw"), 1)


def fill(tmp_path: Path) -> Path:
    root = tmp_path / "woods"
    for name in ("one/a.py", "one/b[1].py", "two/a.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"x = {name!r}\n")
    rows = [json.dumps({"text": f"row {number}"}) for number in range(4)]
    (root / "rows.jsonl").write_text("\n".join(rows) + "\n")
    return root


def left(got: Collected) -> set[str]:
    assert all(not row.fault for row in got.skipped)
    return {row.path for row in got.skipped if row.reason == REASON}


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("woods/one/a.py", {"one/a.py"}),
        ("a.py", {"one/a.py", "two/a.py"}),
        ("woods/one/**", {"one/a.py", "one/b[1].py"}),
        (literal("woods/one/b[1].py"), {"one/b[1].py"}),
        ("table/rows.jsonl", {"rows.jsonl"}),
        ("table/rows.jsonl#2", {"rows.jsonl#2"}),
        ("elsewhere/**", set()),
    ],
)
def test_patterns(pattern: str, gone: set[str], tmp_path: Path) -> None:
    root = fill(tmp_path)
    got, all_of_it = gather(root, pattern), gather(root)
    assert left(got) == gone
    lost = {d.path for d in all_of_it.documents} - {d.path for d in got.documents}
    assert len(lost) == (4 if gone == {"rows.jsonl"} else len(gone))
    assert all(any(path.startswith(name) for name in gone) for path in lost)


def test_the_sample_of_the_others_stays(tmp_path: Path) -> None:
    root = fill(tmp_path)
    for number in range(40):
        (root / f"f{number}.py").write_text(f"x = {number}\n")
    before = [d.path for d in gather(root, limit=10).documents]
    after = [d.path for d in gather(root, literal(f"woods/{before[0]}"), limit=10).documents]
    assert len(after) == 10 and set(before[1:]) < set(after)


def test_a_pattern_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"collect\.exclude: 'a\[z-a\]'"):
        excluded(["a[z-a]"])
