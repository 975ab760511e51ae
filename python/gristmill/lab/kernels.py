"""Users' kernels: a numba @cfunc, or a C++ file compiled on the spot, in place of a table entry.

A kernel has the contract's signature `Status op(Context*, const OpArgs*)`. For numba, `record(op)`
is the argument struct as a NumPy dtype, so `carray(args, 1, dtype)[0].rows` reads a field.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.backend import _C
from gristmill.errors import ReproError

_loaded: list[Any] = []  # libraries and cfuncs must outlive their entries

_TYPES = {"int64_t": "<i8", "int32_t": "<i4", "float": "<f4", "DType": "<i4"}
_VIEW = np.dtype({
    "names": ["data", "packed", "strides", "dtype", "accumulate"],
    "formats": ["<u8", "<u8", ("<i8", (4,)), "<i4", "<i4"],
    "offsets": [0, 8, 16, 48, 52], "itemsize": 56,
})  # fmt: skip


def _entry(op: str) -> str:
    names = [e["name"] for e in _C.entries()]
    for candidate in (op, f"{op}_forward"):
        if candidate in names:
            return str(candidate)
    raise KeyError(f"no op '{op}' in the kernel contract; there are: {', '.join(names)}")


def record(op: str) -> np.dtype[Any]:
    """The argument struct of `op` as a NumPy record; a View is a record with address `data`."""
    fields = _C.describe(_entry(op))["fields"]
    last = fields[-1]
    return np.dtype({
        "names": [f["name"] for f in fields],
        "formats": [_VIEW if f["type"] == "View" else _TYPES.get(f["type"], "<u8") for f in fields],
        "offsets": [f["offset"] for f in fields],
        "itemsize": -(-(last["offset"] + last["size"]) // 8) * 8,
    })  # fmt: skip


def use(op: str, kernel: Any) -> None:
    """Put `kernel` in place of `op`: a numba cfunc, an address, or the path of a C++ file.

    A C++ file includes "kernels.h" and defines `extern "C" gristmill::Status <entry>(...)`.
    Fusions that contain the op are off until `reset`. Raises RuntimeError with the compiler's
    output when the file does not compile.
    """
    entry = _entry(op)
    if isinstance(kernel, (str, Path)):
        address = _compile(Path(kernel), entry)
    else:
        address = int(getattr(kernel, "address", kernel))
        _loaded.append(kernel)
    _C.swap(entry, address)
    off = [e["name"] for e in _C.entries() if entry in e["contains"].split()]
    if off:
        print(f"{entry} replaced; composed instead of fused: {', '.join(off)}")


def reset(op: str) -> None:
    """The table's own kernel again."""
    _C.swap(_entry(op), None)


def headers() -> Path:
    """The folder of kernels.h: in an installed package, or in the source tree."""
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "include", here.parents[3] / "csrc"):
        if (folder / "kernels.h").exists():
            return folder
    raise FileNotFoundError(
        "kernels.h is neither in the package nor beside it; reinstall gristmill"
    )


def _compile(source: Path, entry: str) -> int:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("no C++ compiler found; install one (Debian: apt install g++)")
    text = source.read_text("utf-8")
    name = hashlib.sha256(f"{text}{_C.abi()}".encode()).hexdigest()[:16]
    library = Path(tempfile.mkdtemp(prefix="gristmill-lab-")) / f"{entry}-{name}.so"
    guard = f'\nextern "C" unsigned long long gristmill_abi() {{ return {_C.abi()}ull; }}\n'
    copy = library.with_suffix(".cpp")
    copy.write_text(text + guard)
    command = [
        compiler, "-std=c++20", "-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC",
        f"-I{headers()}", f"-I{source.resolve().parent}", str(copy), "-o", str(library),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{source} does not compile:\n{done.stderr}")
    lib = ctypes.CDLL(str(library))
    _loaded.append(lib)
    try:
        function = getattr(lib, entry)
    except AttributeError:
        raise RuntimeError(f'{source} does not define extern "C" {entry}') from None
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@dataclass(frozen=True)
class Report:
    """What `check` found: the worst error as a multiple of the allowed one, and where."""

    op: str
    cases: int
    worst: float
    where: str

    @property
    def ok(self) -> bool:
        return self.worst <= 1.0


Case = Callable[[int, int, np.random.Generator], tuple[npt.NDArray[Any], npt.NDArray[Any]]]


def _silu(rows: int, cols: int, rng: np.random.Generator) -> tuple[Any, Any]:
    from gristmill.ops.silu import reference_forward

    x = (rng.standard_normal((rows, cols)) * 4).astype(np.float32)
    out = _C.empty((rows, cols), "float32")
    out.numpy()[...] = np.nan  # a value nobody writes must show
    _C.silu_forward(out, _C.from_numpy(x))
    return out.numpy(), reference_forward(x.astype(np.float64))


_CASES: dict[str, Case] = {"silu_forward": _silu}


def check(op: str, tolerance: float = 8 * 2.0**-24) -> Report:
    """Run the active kernel of `op` against its twin in float64 on awkward sizes.

    Allowed is `tolerance` times (1 + |value|): eight roundings of float32 by default. Raises
    ReproError naming the first wrong element.
    """
    entry = _entry(op)
    if entry not in _CASES:
        raise KeyError(f"check knows {', '.join(_CASES)}; test other ops with tests/ops")
    rng = np.random.default_rng(0)
    worst, where, cases = 0.0, "", 0
    for rows in (1, 3, 17):
        for cols in (1, 15, 16, 17, 31, 64, 1009):
            got, want = _CASES[entry](rows, cols, rng)
            error = np.abs(got - want) / (tolerance * (1 + np.abs(want)))
            error = np.where(np.isnan(error), np.inf, error)
            cases += 1
            if error.max() > worst:
                i = np.unravel_index(int(error.argmax()), error.shape)
                worst = float(error.max())
                at = tuple(map(int, i))
                where = f"shape ({rows}, {cols}), element {at}: {got[i]}, twin {want[i]}"
    report = Report(entry, cases, worst, where)
    if not report.ok:
        raise ReproError(f"{entry} is wrong by {worst:.3g} times the allowed error: {where}")
    return report
