"""Makes sources.py importable; after every test the table has its own kernels and threads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill import lab
from gristmill.backend import _C

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(autouse=True)
def own_kernels_afterwards() -> Iterator[None]:
    threads = _C.threads()
    yield
    assert _C.threads() == threads
    lab.reset()
