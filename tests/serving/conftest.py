"""Fixtures: servers that tests share, and one of their own with options."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from serving_process import Server

import gristmill.serving


@pytest.fixture(scope="session")
def run_servers() -> Iterator[None]:
    """Skips where the extra [run] is missing; no key from the environment."""
    for name in ("fastapi", "granian", "prometheus_client"):
        pytest.importorskip(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GRISTMILL_API_KEY", raising=False)
        # the servers run the package under test, wherever this process found it
        package = str(Path(gristmill.serving.__file__ or "").parents[2])
        paths = [package, os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        yield


@pytest.fixture(scope="session")
def server(run_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server most tests share: stand-in model, default limits."""
    started = Server(tmp_path_factory.mktemp("serve") / "log.jsonl")
    yield started
    assert started.stop() == 0


@pytest.fixture
def start(run_servers: None, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers with options and ends them."""
    started: list[Server] = []

    def starter(*options: str) -> Server:
        started.append(Server(tmp_path / f"log{len(started)}.jsonl", *options))
        return started[-1]

    yield starter
    for one in started:
        one.stop()
