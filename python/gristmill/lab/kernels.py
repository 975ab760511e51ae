"""Users' kernels: a numba @cfunc, or a C++ file compiled on the spot, in place of a table entry.

A kernel has the contract's signature `Status op(Context*, const OpArgs*)`. For numba, `record(op)`
is the argument struct as a NumPy dtype, so `carray(args, 1, dtype)[0].rows` reads a field.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.artifacts import sha256_file
from gristmill.backend import _C

_loaded: list[Any] = []  # libraries and cfuncs must outlive their entries


@dataclass(frozen=True)
class Own:
    """A user's kernel: where it is, and what stands for its code in the key of a run."""

    address: int
    digest: str


_own: dict[str, Own] = {}

# What is compiled after the user's source: the hash of the argument structs it was compiled with.
_ABI = """
#include "kernels.h"
extern "C" unsigned long long gristmill_abi() { return gristmill::kernel_abi(); }
"""

_TYPES = {"int64_t": "<i8", "int32_t": "<i4", "float": "<f4", "DType": "<i4"}
_VIEW = np.dtype({
    "names": ["data", "packed", "strides", "dtype", "accumulate"],
    "formats": ["<u8", "<u8", ("<i8", (4,)), "<i4", "<i4"],
    "offsets": [0, 8, 16, 48, 52], "itemsize": 56,
})  # fmt: skip


def entry_of(op: str) -> str:
    """The entry named `op`, or its forward one. Raises KeyError with the entries there are."""
    names = [e["name"] for e in _C.entries()]
    for candidate in (op, f"{op}_forward"):
        if candidate in names:
            return str(candidate)
    raise KeyError(f"no op '{op}' in the kernel contract; there are: {', '.join(names)}")


def record(op: str) -> np.dtype[Any]:
    """The argument struct of `op` as a NumPy record; a View is a record with address `data`."""
    fields = _C.describe(entry_of(op))["fields"]
    last = fields[-1]
    return np.dtype({
        "names": [f["name"] for f in fields],
        "formats": [_VIEW if f["type"] == "View" else _TYPES.get(f["type"], "<u8") for f in fields],
        "offsets": [f["offset"] for f in fields],
        "itemsize": -(-(last["offset"] + last["size"]) // 8) * 8,
    })  # fmt: skip


def use(op: str, kernel: Any) -> None:
    """Put `kernel` in place of `op`: a numba cfunc, an address, or the path of a C++ file.

    A C++ file includes "kernels.h" and defines `extern "C" gristmill::Status <entry>(...)`; it is
    compiled here, and refused when the argument structs it was compiled with are not those of the
    table. Of an address nothing is known: its argument struct must be `record(op)`.
    Fusions that contain the op are off until `reset`. Raises RuntimeError, with the compiler's
    output when the file does not compile.
    """
    entry = entry_of(op)
    if isinstance(kernel, (str, Path)):
        own = _compile(Path(kernel), entry)
    else:  # code that cannot be read: no two of them count as the same
        own = Own(int(getattr(kernel, "address", kernel)), f"unknown {uuid.uuid4().hex}")
        _loaded.append(kernel)
    _C.swap(entry, own.address)
    _own[entry] = own
    off = [e["name"] for e in _C.entries() if entry in e["contains"].split()]
    if off:
        print(f"{entry} replaced; composed instead of fused: {', '.join(off)}")


def reset(op: str) -> None:
    """The table's own kernel again."""
    entry = entry_of(op)
    _C.swap(entry, None)
    _own.pop(entry, None)


def active() -> dict[str, str]:
    """{entry: digest} of the kernels that `use` put in place: a part of the key of a run.

    The sha256 of the library that a C++ file was compiled to; of any other kernel a name of its
    own at each `use`, so that its results are never reused.
    """
    return {entry: own.digest for entry, own in _own.items() if _replaced(entry)}


def address(op: str) -> int:
    """Where the kernel is that `use` put in place of `op`. Raises ValueError when there is none."""
    entry = entry_of(op)
    if entry not in _own or not _replaced(entry):
        raise ValueError(f"{entry} is the table's own kernel; put yours in its place: lab.use")
    return _own[entry].address


def _replaced(entry: str) -> bool:
    return any(e["replaced"] for e in _C.entries() if e["name"] == entry)


def headers() -> Path:
    """The folder of kernels.h: in an installed package, or in the source tree."""
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "include", here.parents[3] / "csrc"):
        if (folder / "kernels.h").exists():
            return folder
    raise FileNotFoundError(
        "kernels.h is neither in the package nor beside it; reinstall gristmill"
    )


def _compile(source: Path, entry: str) -> Own:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("no C++ compiler found; install one (Debian: apt install g++)")
    library = Path(tempfile.mkdtemp(prefix="gristmill-lab-")) / f"{entry}.so"
    copy = library.with_suffix(".cpp")
    copy.write_text(source.read_text("utf-8") + _ABI)
    command = [
        compiler, "-std=c++20", "-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC",
        f"-I{headers()}", f"-I{source.resolve().parent}", str(copy), "-o", str(library),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{source} does not compile:\n{done.stderr}")
    lib = ctypes.CDLL(str(library))
    _loaded.append(lib)
    _check_abi(lib, source)
    try:
        function = getattr(lib, entry)
    except AttributeError:
        raise RuntimeError(f'{source} does not define extern "C" {entry}') from None
    return Own(ctypes.cast(function, ctypes.c_void_p).value or 0, sha256_file(library))


def _check_abi(lib: ctypes.CDLL, source: Path) -> None:
    lib.gristmill_abi.restype = ctypes.c_uint64
    compiled = lib.gristmill_abi()
    if compiled != _C.abi():
        raise RuntimeError(
            f"{source} was compiled with the argument structs of {headers() / 'kernels.h'} (ABI "
            f"{compiled}), the table calls it with others (ABI {_C.abi()}): header and extension "
            "are of different versions; reinstall gristmill"
        )
