"""`gristmill doctor`: what is active on this machine, why, and what to install for the rest."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from typing import Any

from gristmill import energy, machine
from gristmill.console import listing

# extra -> import names of its packages
EXTRAS = {
    "run": (
        *("duckdb", "tokenizers", "pydantic", "rensa", "matplotlib"),
        *("fastapi", "granian", "prometheus_client", "gguf"),
    ),
    "lab": ("numba",),
    "tabular": ("sklearn",),
    "search": ("optuna",),
    "cluster": ("mpi4py",),
    "test": ("pytest", "hypothesis"),
    "oracles": ("torch", "transformers", "xllamacpp", "openai", "schemathesis"),
}
COMPILERS = ("c++", "g++", "clang++")
VARIABLES = ("GRISTMILL_ISA", "GRISTMILL_THREADS", "GRISTMILL_API_KEY")


def report() -> str:
    """Return the whole report as text; never raises for something that is merely absent."""
    rows = [*_machine(), *_engine(), *_variables(), *_compiler(), *_extras()]
    return listing(rows)


def _machine() -> list[tuple[str, str]]:
    here = machine.describe()
    memory = f"{here['memory_bytes'] / 2**30:.1f} GiB"
    return [
        ("gristmill", _installed_version()),
        ("python", f"{here['python']}  {sys.executable}"),
        ("machine", f"{here['processor']}, {here['cores']} cores, {memory}, {here['system']}"),
        ("energy", energy.Meter().stop()["why"]),
    ]


def _installed_version() -> str:
    try:
        return importlib.metadata.version("gristmill")
    except importlib.metadata.PackageNotFoundError:
        return "not installed: imported from the source tree"


def _extension() -> tuple[Any, str]:
    """Return the extension and "", or None and why it cannot be used and what to do."""
    try:
        return importlib.import_module("gristmill._C"), ""
    except ImportError as error:
        if str(error).startswith("GRISTMILL_"):  # a variable that cannot be obeyed
            return None, f"not loaded: {error}"
        return None, f"missing: {error}; build it with: pip install -e . (needs a C++20 compiler)"


def _engine() -> list[tuple[str, str]]:
    extension, problem = _extension()
    if extension is None:
        return [("extension", problem)]
    entries = extension.entries()
    absent = [entry["name"] for entry in entries if not entry["present"]]
    replaced = [entry["name"] for entry in entries if entry["replaced"]]
    return [
        ("extension", str(extension.__file__)),
        ("table", f"{extension.table()}: {extension.table_reason()}"),
        ("usable tables", ", ".join(extension.tables())),
        ("cuda", str(extension.cuda_absent_reason()) or "built"),
        ("threads", f"{extension.threads()} (GRISTMILL_THREADS overrides)"),
        ("kernel ABI", str(extension.abi())),
        ("kernels", f"{len(entries) - len(absent)} of {len(entries)} entries"),
        *([("no kernel for", ", ".join(absent))] if absent else []),
        *([("replaced", ", ".join(replaced))] if replaced else []),
        *_fused(entries),
    ]


def _fused(entries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return per fused kernel whether it is used or composed of its parts, and why."""
    replaced = {entry["name"] for entry in entries if entry["replaced"]}
    rows = []
    for entry in entries:
        parts = _parts(entry["contains"])
        if not parts:
            continue
        own = sorted(replaced & set(parts))
        if not entry["present"]:
            choice = f"composed of {', '.join(parts)}: this table has no fused kernel"
        elif own:
            choice = f"composed of {', '.join(parts)}: {', '.join(own)} is replaced"
        else:
            choice = "fused"
        rows.append((f"  {entry['name']}", choice))
    return rows


def _parts(contains: Any) -> list[str]:
    return contains.replace(",", " ").split() if isinstance(contains, str) else list(contains or [])


def _variables() -> list[tuple[str, str]]:
    rows = []
    for name in VARIABLES:
        if name in os.environ:
            rows.append((name, "set" if name.endswith("KEY") else os.environ[name]))
    return rows


def _compiler() -> list[tuple[str, str]]:
    for name in COMPILERS:
        path = shutil.which(name)
        if path:
            done = subprocess.run(
                [path, "--version"], capture_output=True, text=True, check=False, timeout=10
            )
            first = (done.stdout.splitlines() or ["?"])[0]
            return [("compiler", f"{path}: {first}")]
    return [
        ("compiler", "none; only building and user kernels in C++ need one: apt install g++ cmake")
    ]


def _extras() -> list[tuple[str, str]]:
    rows = []
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            text = f"missing {', '.join(missing)}: pip install 'gristmill[{extra}]'"
        else:
            text = "complete"
        rows.append((f"[{extra}]", text))
    return rows
