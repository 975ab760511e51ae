"""Users' kernels in place of table entries: C++ compiled on the spot, a numba @cfunc, CUDA.

A kernel has the contract's signature `Status op(Context*, const OpArgs*)`, and beside it may stand
`int64_t op_workspace(const OpArgs*, int32_t threads)`. `gristmill.lab.jit` helps with numba.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.artifacts import sha256_file
from gristmill.backend import _C
from gristmill.errors import KernelError
from gristmill.lab import compiling

_loaded: list[Any] = []  # libraries and cfuncs must outlive their entries


@dataclass(frozen=True)
class Own:
    """A user's kernel: where it is and its workspace, and what stands for its code in the key of a
    run."""

    address: int
    digest: str
    workspace: int | None = None


_own: dict[str, Own] = {}  # put in place by `use`
_now: dict[str, Own | None] = {}  # in place now

_TYPES = {"int64_t": "<i8", "int32_t": "<i4", "float": "<f4", "DType": "<i4"}


# ---------------------------------------------------------------- the contract
def entry_of(op: str) -> str:
    """The entry named `op`, or its forward one. Raises KeyError with the entries there are."""
    names = [e["name"] for e in _C.entries()]
    for candidate in (op, f"{op}_forward"):
        if candidate in names:
            return str(candidate)
    raise KeyError(f"no op '{op}' in the kernel contract; there are: {', '.join(names)}")


def entries_of(op: str) -> list[str]:
    """The entries a file for `op` may define: that one, or all of "gelu"."""
    names = [str(e["name"]) for e in _C.entries()]
    own = [n for n in names if n in (op, f"{op}_forward", f"{op}_backward")]
    return own or [entry_of(op)]


def record(op: str) -> np.dtype[Any]:
    """The argument struct of `op` as a NumPy record; a View is a record with address `data`.

    "View" and "Context" are those themselves.
    """
    fields = _C.describe(op if op in ("View", "Context") else entry_of(op))["fields"]
    last = fields[-1]
    return np.dtype({
        "names": [f["name"] for f in fields],
        "formats": [_format(f["type"]) for f in fields],
        "offsets": [f["offset"] for f in fields],
        "itemsize": -(-(last["offset"] + last["size"]) // 8) * 8,
    })  # fmt: skip


def _format(kind: str) -> Any:
    if kind == "View":
        return record("View")
    if kind.endswith("]"):
        name, _, count = kind[:-1].partition("[")
        return (_TYPES[name], (int(count),))
    return _TYPES.get(kind, "<u8")


# ---------------------------------------------------------------- in and out of the table
def use(op: str, kernel: Any, checked: bool = True) -> None:
    """Put `kernel` in place of `op`: a numba cfunc, an address, "mine.py:name", a .cpp or .cu file.

    A C++ file includes "kernels.h" and defines `extern "C" gristmill::Status <entry>(...)`; it is
    compiled here, and refused when the argument structs it was compiled with are not those of the
    table; one with several entries of the op replaces them all. Of an address nothing is known: its
    argument struct must be `record(op)`. First `check` runs it in a child process; that is left
    out with `checked=False`, where a crash is yours. Fusions that contain the op are off until
    `reset`. Raises KernelError saying what is wrong and what to do.
    """
    from gristmill.lab.checking import check_file

    source = compiling.prepared(kernel, entries_of(op))
    if checked:
        check_file(op, source)
    for entry, own in load(op, source).items():
        place(entry, own)
        _own[entry] = own
        off = [e["name"] for e in _C.entries() if entry in e["contains"].split()]
        if off:
            print(f"{entry} replaced; composed instead of fused: {', '.join(off)}")


def place(entry: str, own: Own | None) -> None:
    """Call `own` as the entry, or again the table's."""
    _now[entry] = own
    if own is None:
        _C.swap(entry, None)
    else:
        _C.swap(entry, own.address, own.workspace)


@contextmanager
def placed(kernels: Mapping[str, Own | None]) -> Iterator[None]:
    """Other kernels for the duration; afterwards those that were there."""
    before = {entry: _now.get(entry) for entry in kernels}
    try:
        for entry, own in kernels.items():
            place(entry, own)
        yield
    finally:
        for entry, own in before.items():
            place(entry, own)


def reset(op: str | None = None) -> None:
    """The table's own kernels again: all entries of `op`, or of everything."""
    for entry in list(_own) if op is None else {entry_of(op), *entries_of(op)}:
        place(entry, None)
        _own.pop(entry, None)


def active() -> dict[str, str]:
    """{entry: digest} of the kernels that `use` put in place: a part of the key of a run.

    The sha256 of the library that a C++ file was compiled to; of any other kernel a name of its
    own at each `use`, so that its results are never reused.
    """
    return {entry: own.digest for entry, own in _own.items() if _replaced(entry)}


def own(op: str) -> Own:
    """The kernel that `use` put in place of `op`. Raises ValueError when there is none."""
    entry = entry_of(op)
    if entry not in _own or not _replaced(entry):
        raise ValueError(f"{entry} is the table's own kernel; put yours in its place: lab.use")
    return _own[entry]


def _replaced(entry: str) -> bool:
    return any(e["replaced"] for e in _C.entries() if e["name"] == entry)


# ---------------------------------------------------------------- loading
def load(op: str, source: Any) -> dict[str, Own]:
    """The kernels of what `compiling.prepared` gave, by entry."""
    if isinstance(source, compiling.Library):
        return _from_library(source, entries_of(op))
    if isinstance(source, compiling.Module):
        return _from_module(source, op)
    return {entry_of(op): _callable(source, entry_of(op))}


def _from_library(source: compiling.Library, entries: list[str]) -> dict[str, Own]:
    lib = ctypes.CDLL(str(source.path))
    _loaded.append(lib)
    compiling.check_abi(lib, source)
    digest = sha256_file(source.path)
    found = {}
    for entry in entries:
        address = _symbol(lib, entry)
        if address is not None:
            found[entry] = Own(address, digest, _symbol(lib, f"{entry}_workspace"))
    if not found:
        wanted = " or ".join(f'extern "C" {entry}' for entry in entries)
        raise KernelError(
            f'{source.file} does not define {wanted}; a kernel begins: #include "kernels.h"  '
            f'extern "C" gristmill::Status {entries[0]}(gristmill::Context* ctx, '
            f"const gristmill::{compiling.struct_of(entries[0])}* a)"
        )
    return found


def _symbol(lib: ctypes.CDLL, name: str) -> int | None:
    try:
        return ctypes.cast(getattr(lib, name), ctypes.c_void_p).value
    except AttributeError:
        return None


def _from_module(source: compiling.Module, op: str) -> dict[str, Own]:
    spec = importlib.util.spec_from_file_location(f"_kernel_{uuid.uuid4().hex}", source.file)
    if spec is None or spec.loader is None:
        raise KernelError(f"{source.file} cannot be imported; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        advice = "; pip install 'gristmill[lab]'" if isinstance(error, ImportError) else ""
        raise KernelError(
            f"{source.file} does not run: {type(error).__name__}: {error}{advice}"
        ) from error
    if source.name:
        if not hasattr(module, source.name):
            raise KernelError(f"{source.file} has no {source.name!r}; name one that it defines")
        return {entry_of(op): _callable(getattr(module, source.name), entry_of(op))}
    names = {op: entry_of(op), **{entry: entry for entry in entries_of(op)}}
    found = {e: getattr(module, n) for n, e in names.items() if hasattr(module, n)}
    if not found:
        raise KernelError(f"{source.file} defines none of {', '.join(names)}; name the "
                          f"kernel: {source.file}:NAME")  # fmt: skip
    return {entry: _callable(kernel, entry) for entry, kernel in found.items()}


def _callable(kernel: Any, entry: str) -> Own:
    """Code that cannot be read: no two of them count as the same."""
    address = getattr(kernel, "address", kernel)
    if not isinstance(address, int):
        raise KernelError(
            f"{kernel!r} is no kernel of {entry}: it has no address. Decorate a function with "
            f'gristmill.lab.jit.kernel("{entry}"), or give an address'
        )
    if hasattr(kernel, "_sig"):
        from gristmill.lab import jit

        jit.expect_signature(kernel, entry)
    _loaded.append(kernel)
    return Own(address, f"unknown {uuid.uuid4().hex}", getattr(kernel, "workspace", None))
