"""The benches: `bench/` of a checkout, or the copy of it that an installed package carries.

They are programs beside the package, not a part of it: `python -m bench.ops.gelu` runs one in a
checkout, `gristmill bench gelu` anywhere.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gristmill.errors import ConfigError


def folder() -> Path:
    """Where the benches are."""
    here = Path(__file__).resolve()
    for candidate in (here.parents[1] / "bench", here.parents[3] / "bench"):
        if (candidate / "measure.py").is_file():
            return candidate
    raise ConfigError("the benches are neither in the package nor beside it; reinstall gristmill")


def load(name: str) -> Any:
    """The module bench.NAME. Another package called `bench` on the path is not taken for ours."""
    if "bench" not in sys.modules:
        package = types.ModuleType("bench")
        package.__path__ = [str(folder())]
        sys.modules["bench"] = package
    return importlib.import_module(f"bench.{name}")


def ops() -> list[str]:
    """The ops that have a bench."""
    return sorted(file.stem for file in (folder() / "ops").glob("[a-z]*.py"))


def chosen(name: str) -> tuple[str, str]:
    """The op of a name, and the words its cases must have: "gelu_backward" is ("gelu", "backward").

    Raises ConfigError with what it may have meant.
    """
    for op in ops():
        if name == op or name in (f"{op}_forward", f"{op}_backward"):
            return op, name[len(op) + 1 :]
    raise ConfigError(f"no bench of {name!r}{guess(name, ops())}; there are: {', '.join(ops())}")


def guess(name: str, known: Iterable[str]) -> str:
    """ ", did you mean ...?", or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""
