"""One finished tiny run for all tests of this folder; a test that damages it takes a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("gristmill._C")
for name in ("duckdb", "pydantic", "tokenizers", "gguf"):
    pytest.importorskip(name)

import ledger_run  # noqa: E402


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ledger_run.write_source(tmp_path_factory.mktemp("woods"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """Folder of the run; its parent is the folder of runs."""
    return ledger_run.run(tmp_path_factory.mktemp("ledger") / "runs", source)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """The same in a folder that a test may change."""
    root = tmp_path / "runs"
    shutil.copytree(finished.parent, root, symlinks=True)
    return root / finished.name
