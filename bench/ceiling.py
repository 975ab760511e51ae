"""What the machine can do at best: fused multiply-adds from registers, streams through memory.

Both are measured by ceiling.cpp, compiled here for this processor, on as many threads as kernels
use. A ceiling is measured anew at each call, so that it can take turns with what it is compared to.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gristmill.backend import _C

SAMPLE = 0.005  # seconds a sample lasts at least
LONGEST = 0.2  # seconds a ceiling's sample lasts at most
ALIGN = 64


class NoCompiler(RuntimeError):
    """There is nothing to compile the ceilings with."""


@cache
def _library() -> ctypes.CDLL:
    source = Path(__file__).with_name("ceiling.cpp")
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise NoCompiler(
            "no C++ compiler found, so there is no ceiling; install one (Debian: apt install g++)"
        )
    out = Path(tempfile.mkdtemp(prefix="gristmill-bench-")) / "ceiling.so"
    flags = ["-O3", "-std=c++20", "-march=native", "-ffp-contract=fast"]
    shared = ["-shared", "-fPIC", "-pthread"]
    try:
        subprocess.run([compiler, *flags, *shared, str(source), "-o", str(out)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoCompiler(f"{compiler} does not compile the ceilings ({error})") from None
    library = ctypes.CDLL(str(out))
    for name in ("ceiling_fma", "ceiling_bf16", "ceiling_stream"):
        getattr(library, name).restype = ctypes.c_double
    return library


def _compute_seconds(flops: float, dtype: str) -> float:
    threads, work = _C.threads(), ctypes.c_double(flops)
    if dtype == "bfloat16":
        taken = float(_library().ceiling_bf16(threads, work))
        if taken > 0:
            return taken
    return float(_library().ceiling_fma(threads, work))  # also where bfloat16 has no instruction


def compute_ceiling(flops: float, dtype: str = "float32") -> Callable[[], float]:
    """Seconds for `flops` operations out of registers.

    A sample does that work as often as fits into SAMPLE seconds, or as much of it as LONGEST.
    """
    share = 0.0

    def measured() -> float:
        nonlocal share
        if not share:
            once = _compute_seconds(1e8, dtype) * flops / 1e8
            share = min(max(once, SAMPLE), LONGEST) / once
        return _compute_seconds(flops * share, dtype) / share

    return measured


def stream_ceiling(
    reads: int, writes: int, elements: float, in_place: bool = False
) -> Callable[[], float]:
    """Seconds for one pass that reads and writes arrays of `elements` float32 (may be a fraction
    of an array: a bfloat16 one counts half)."""
    n = max(16, int(elements) // 16 * 16)
    arrays = [aligned(n) for _ in range(reads + (0 if in_place else writes))]
    addresses = [a.ctypes.data for a in arrays]
    into = (ctypes.c_void_p * max(1, reads))(*addresses[:reads])
    out = (ctypes.c_void_p * max(1, writes))(*addresses[reads:])
    passes = max(1, int(SAMPLE * 1e10 / (4 * n * max(1, reads + writes))))

    def measured() -> float:
        assert arrays
        s = _library().ceiling_stream(
            _C.threads(), into, reads, out, writes, int(in_place), ctypes.c_int64(n), passes
        )
        assert s >= 0, f"no stream of {reads} reads and {writes} writes in ceiling.cpp"
        return float(s)

    return measured


def aligned(n: int) -> npt.NDArray[np.float32]:
    """Zeros, float32, on a cache line, pages touched."""
    raw = np.zeros(n + ALIGN // 4, np.float32)
    skip = -raw.ctypes.data % ALIGN // 4
    out = raw[skip : skip + n]
    out[...] = 0
    return out
