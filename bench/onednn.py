"""oneDNN's own float32 product, through the C library where the machine has one (Debian: libdnnl2).

What PyTorch computes in bfloat16 is oneDNN too, of a newer version than Debian's.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np


@cache
def library() -> Any:
    """The C library, or None."""
    name = os.environ.get("GRISTMILL_DNNL") or ctypes.util.find_library("dnnl")
    if not name:
        return None
    try:
        found = ctypes.CDLL(name)
        sgemm = found.dnnl_sgemm
    except (OSError, AttributeError):
        return None
    size, real, pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
    sgemm.argtypes = [ctypes.c_char, ctypes.c_char, size, size, size, real]
    sgemm.argtypes += [pointer, size, pointer, size, real, pointer, size]
    return found


def version() -> str:
    class Version(ctypes.Structure):
        _fields_ = [(n, ctypes.c_int) for n in ("major", "minor", "patch")]

    library().dnnl_version.restype = ctypes.POINTER(Version)
    v = library().dnnl_version().contents
    return f"{v.major}.{v.minor}.{v.patch}"


def set_threads(count: int) -> None:
    """Debian's is built on OpenMP."""
    name = ctypes.util.find_library("gomp")
    if name:
        ctypes.CDLL(name).omp_set_num_threads(count)


def matmul(
    out: Any, a: Any, b: Any, compute: str, packed: Any = None
) -> Callable[[], object] | None:
    """One product, rows of the result one after the other."""
    if compute != "float32" or packed is not None or len(out) != 1:
        return None
    sides = [_side(x[0]) for x in (a, b)]
    if None in sides or out.strides[-1] != 4:
        return None
    (m, k), n = a.shape[1:], b.shape[2]
    (ta, lda), (tb, ldb) = sides  # type: ignore[misc]
    pointers = [x.ctypes.data for x in (a, b, out)]
    call, ldc = library().dnnl_sgemm, out.strides[1] // 4

    def run() -> None:
        status = call(
            ta, tb, m, n, k, 1.0, pointers[0], lda, pointers[1], ldb, 0.0, pointers[2], ldc
        )
        if status:
            raise RuntimeError(f"dnnl_sgemm: status {status}")

    return run


def _side(x: np.ndarray[Any, Any]) -> tuple[bytes, int] | None:
    """Transposed or not, and the distance of rows; None for other strides."""
    if x.strides[1] == 4:
        return b"N", x.strides[0] // 4
    if x.strides[0] == 4:
        return b"T", x.strides[1] // 4
    return None


TABLE: dict[str, Callable[..., Callable[[], object] | None]] = {"matmul": matmul}
