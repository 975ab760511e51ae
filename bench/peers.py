"""Other libraries at the work of ours: which are here, their threads, and the calls they make.

A case brings PyTorch itself. What NumPy (its products are OpenBLAS), numba and oneDNN do is written
once for each entry of the kernel table, with the binding's signature on NumPy arrays: the call that
a case makes is recorded, and repeated by them on copies of its arrays.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any

import numpy as np
from bench import onednn, peers_numpy
from bench.measure import Case, Peer, close

from gristmill.backend import _C

# of the largest value: a peer sums in another order and has another exp; other work differs by more
ALIKE = 1e-3

# name in tables: how to get it
INSTALL = {
    "PyTorch": "pip install torch",
    "NumPy": "pip install numpy",
    "OpenBLAS": "pip install numpy (a wheel with OpenBLAS)",
    "numba": "pip install 'gristmill[lab]'",
    "oneDNN": "apt install libdnnl2 (Debian), or name it: GRISTMILL_DNNL=/path/to/libdnnl.so",
}


@dataclass(frozen=True)
class Call:
    """One call of an entry: its name and arguments by position."""

    entry: str
    arguments: tuple[Any, ...]


# ---------------------------------------------------------------- which are here
@cache
def installed() -> dict[str, str]:
    """Name and version of every peer that this machine has."""
    found = {"NumPy": np.__version__}
    for name, package in (("PyTorch", "torch"), ("numba", "numba")):
        if util.find_spec(package) is not None:
            found[name] = metadata.version(package)
    if (blas := openblas()) is not None:
        found["OpenBLAS"] = blas[1]
    if onednn.library() is not None:
        found["oneDNN"] = onednn.version()
    return {name: found[name] for name in INSTALL if name in found}


@cache
def openblas() -> tuple[Callable[[int], None], str] | None:
    """How to set the threads of NumPy's OpenBLAS, and its version; None where NumPy has another."""
    blas = np.show_config("dicts")["Build Dependencies"]["blas"]
    maps = Path("/proc/self/maps")
    if "openblas" not in blas["name"] or not maps.exists():
        return None
    for file in set(re.findall(r"/\S*openblas\S*", maps.read_text("utf-8"))):
        library = ctypes.CDLL(file)
        for name in ("scipy_openblas", "openblas"):
            for suffix in ("64_", ""):
                call = getattr(library, f"{name}_set_num_threads{suffix}", None)
                if call is not None:
                    return call, str(blas["version"])
    return None


def set_threads(count: int, names: Iterable[str]) -> None:
    """The same number of threads for ours and for each of the peers."""
    _C.set_threads(count)
    chosen = set(names)
    if "PyTorch" in chosen:
        import_module("torch").set_num_threads(count)
    if {"NumPy", "OpenBLAS"} & chosen and (blas := openblas()) is not None:
        blas[0](count)
    if "numba" in chosen:
        numba = import_module("numba")
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    if "oneDNN" in chosen:
        onednn.set_threads(count)


# ---------------------------------------------------------------- what a case calls
class _Recorder:
    """Stands for `_C` in a module of bench.ops while a case runs; its kernels do nothing, for one
    that updates in place must not run before it is verified."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._entries = {e["name"] for e in _C.entries()}

    def __getattr__(self, name: str) -> Any:
        value = getattr(_C, name)
        if name not in self._entries:
            return value

        def call(*arguments: Any) -> None:
            self.calls.append(Call(name, arguments))

        return call


def calls(module: Any, case: Case) -> list[Call]:
    """The entries that `case.ours()` calls, with their arguments."""
    recorder = _Recorder()
    module._C = recorder
    try:
        case.ours()
    finally:
        module._C = _C
    return recorder.calls


def of(case: Case, made: list[Call], wanted: Iterable[str]) -> dict[str, Peer]:
    """The peers among `wanted` that know the one call a case makes, on float32."""
    if len(made) != 1 or not all(_is_plain(x) for x in made[0].arguments):
        return {}
    call = made[0]
    tables: Mapping[str, Mapping[str, Callable[..., Callable[[], object] | None]]] = {
        "NumPy": peers_numpy.TABLE,
        "OpenBLAS": peers_numpy.PRODUCTS,
        "numba": import_module("bench.peers_numba").TABLE if "numba" in wanted else {},
        "oneDNN": onednn.TABLE,
    }
    found = {}
    for name, table in tables.items():
        if name not in wanted or name in case.named() or call.entry not in table:
            continue
        peer = _peer(case, call, table[call.entry])
        if peer is not None:
            found[name] = peer
    return found


def _is_plain(x: Any) -> bool:
    return not isinstance(x, _C.Array) or x.dtype in ("float32", "int32", "int64")


def _peer(
    case: Case, call: Call, prepare: Callable[..., Callable[[], object] | None]
) -> Peer | None:
    """`prepare` takes the arguments and gives what is timed, or None where it cannot do them."""
    ours = [x.numpy() if isinstance(x, _C.Array) else x for x in call.arguments]
    theirs = [x.copy(order="K") if isinstance(x, np.ndarray) else x for x in ours]
    run = prepare(*theirs)
    if run is None:
        return None

    def check() -> None:
        for mine, other in zip(ours, theirs, strict=True):
            if isinstance(mine, np.ndarray):
                other[...] = mine
        case.ours()
        run()
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            if isinstance(mine, np.ndarray):
                close(other, mine, ALIKE, f"array {i} of the peer and ours")

    return Peer(run, check)
