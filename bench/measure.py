"""How kernels are measured: verify, then take turns with a peer and with the machine's ceiling.

    python -m bench.ops.matmul [--threads N] [--rounds N] [--only TEXT] [--json FILE]

Every round times ours, the peer (PyTorch where it is installed, else NumPy) and the ceiling one
after the other, so that a busy neighbour meets all three; figures are medians over the rounds of
what was measured, of peer / ours and of ceiling / ours. The ceiling of a product is fma from
registers, of a memory-bound op the same number of streams over arrays of the same size.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.backend import _C

try:
    import torch
except ImportError:
    torch = None

SAMPLE = 0.005  # seconds a sample lasts at least
PAUSE = 0.02  # seconds before each sample: the threads of the one before spin for a while
ALIGN = 64


@dataclass(frozen=True)
class Case:
    """One line: `ours` and `peer` do the same work; `check` raises when their results differ.

    `ceiling` gives the seconds the machine needs at least; `amount` of `unit` (GFLOP, GB) is done.
    """

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object] | None
    check: Callable[[], None]
    ceiling: Callable[[], float]
    amount: float
    unit: str


@dataclass(frozen=True)
class Row:
    """Medians of one case; spread is half the distance of the quartiles over the median."""

    name: str
    milliseconds: float
    spread: float
    rate: float
    unit: str
    peer_milliseconds: float | None
    ratio: float | None
    of_ceiling: float

    def __str__(self) -> str:
        ours = (
            f"{self.milliseconds:9.3f} ms ±{100 * self.spread:3.0f} %{self.rate:9.1f} {self.unit}/s"
        )
        peer = "" if self.ratio is None else f"{self.peer_milliseconds:9.3f} ms {self.ratio:5.2f}x"
        return f"{self.name:<34}{ours:<36}{peer:<20}{100 * self.of_ceiling:5.0f} % of ceiling"


def seconds(f: Callable[[], object], calls: int) -> float:
    """Seconds of one call, the mean of `calls`, after a pause."""
    time.sleep(PAUSE)
    start = time.perf_counter()
    for _ in range(calls):
        f()
    return (time.perf_counter() - start) / calls


def calls_for(f: Callable[[], object]) -> int:
    """How many calls make a sample; also warms up."""
    f()
    return max(1, int(SAMPLE / max(seconds(f, 2), 1e-7)))


def measure(case: Case, rounds: int) -> Row:
    """Verify, then interleave. Raises AssertionError when the results differ."""
    case.check()
    ours, theirs, ceilings = [], [], []
    calls = calls_for(case.ours)
    peer_calls = calls_for(case.peer) if case.peer else 0
    for _ in range(rounds):
        ours.append(seconds(case.ours, calls))
        if case.peer:
            theirs.append(seconds(case.peer, peer_calls))
        time.sleep(PAUSE)
        ceilings.append(min(case.ceiling() for _ in range(3)))
    middle = statistics.median(ours)
    low, _, high = statistics.quantiles(ours, n=4) if rounds > 1 else (middle,) * 3
    ratios = [b / a for a, b in zip(ours, theirs, strict=False)]
    return Row(
        name=case.name,
        milliseconds=1e3 * middle,
        spread=(high - low) / 2 / middle,
        rate=case.amount / middle,
        unit=case.unit,
        peer_milliseconds=1e3 * statistics.median(theirs) if theirs else None,
        ratio=statistics.median(ratios) if ratios else None,
        of_ceiling=statistics.median(c / o for c, o in zip(ceilings, ours, strict=True)),
    )


def options() -> argparse.Namespace:
    """The command line every bench has."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=_C.threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", type=Path, help="append one JSON line per case")
    return parser.parse_args()


def run(cases: Callable[[], Iterable[Case]], args: argparse.Namespace | None = None) -> None:
    """Measure and print the cases of one op as they are built."""
    args = args or options()
    _C.set_threads(args.threads)
    if torch is not None:
        torch.set_num_threads(args.threads)
    peer = "NumPy" if torch is None else f"PyTorch {torch.__version__}"
    print(f"table {_C.table()}, {args.threads} threads, {args.rounds} rounds, beside {peer}")
    for case in cases():
        if args.only not in case.name:
            continue
        row = measure(case, args.rounds)
        print(row, flush=True)
        if args.json:
            with args.json.open("a") as f:
                about = {"table": _C.table(), "threads": args.threads, "peer": peer}
                f.write(json.dumps({**row.__dict__, **about}) + "\n")


# ---------------------------------------------------------------- the machine's ceiling
@cache
def _library() -> ctypes.CDLL:
    source = Path(__file__).with_name("ceiling.cpp")
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("bench needs a C++ compiler for its ceilings (Debian: apt install g++)")
    out = Path(tempfile.mkdtemp(prefix="gristmill-bench-")) / "ceiling.so"
    flags = [
        "-O3",
        "-std=c++20",
        "-march=native",
        "-ffp-contract=fast",
        "-shared",
        "-fPIC",
        "-pthread",
    ]
    subprocess.run([compiler, *flags, str(source), "-o", str(out)], check=True)
    library = ctypes.CDLL(str(out))
    for name in ("ceiling_fma", "ceiling_bf16", "ceiling_stream"):
        getattr(library, name).restype = ctypes.c_double
    return library


def compute_ceiling(flops: float, dtype: str = "float32") -> Callable[[], float]:
    """Seconds for `flops` operations out of registers, measured anew at each call."""

    def measured() -> float:
        f = _library().ceiling_bf16 if dtype == "bfloat16" else _library().ceiling_fma
        rate = f(_C.threads(), ctypes.c_int64(150_000))
        return flops / (rate or _library().ceiling_fma(_C.threads(), ctypes.c_int64(150_000)))

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


# ---------------------------------------------------------------- arrays both sides share
def aligned(n: int) -> npt.NDArray[np.float32]:
    """Zeros, float32, on a cache line, pages touched."""
    raw = np.zeros(n + ALIGN // 4, np.float32)
    skip = -raw.ctypes.data % ALIGN // 4
    out = raw[skip : skip + n]
    out[...] = 0
    return out


def normal(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Random float32 (zeros would draw less power and run faster)."""
    out = aligned(int(np.prod(shape))).reshape(shape)
    out[...] = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return out


def bf16(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of x as bfloat16, rounded to nearest even."""
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def array(x: npt.NDArray[Any]) -> Any:
    """For a binding; uint16 is bfloat16."""
    return _C.from_numpy(x, x.dtype == np.uint16)


def tensor(x: npt.NDArray[Any]) -> Any:
    """For PyTorch, on the same memory."""
    if x.dtype == np.uint16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def close(got: npt.NDArray[Any], want: npt.NDArray[Any], tolerance: float) -> None:
    """Raises AssertionError when results differ by more than `tolerance` of the largest value."""
    got, want = (_wide(x) for x in (got, want))
    worst = float(np.abs(got - want).max())
    allowed = tolerance * float(np.abs(want).max())
    assert worst <= allowed, f"results differ by {worst:.3g}, allowed is {allowed:.3g}"


def streaming(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object] | None,
    results: Callable[[], Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]]],
    streams: tuple[int, int],
    elements: float,
    tolerance: float = 1e-5,
    in_place: bool = False,
) -> Case:
    """A memory-bound case: (reads, writes) of arrays of `elements` float32, or float32's worth.

    `results` gives pairs (ours, peer's) after both ran once.
    """

    def check() -> None:
        ours()
        if peer is not None:
            peer()
            for mine, other in results():
                close(mine, other, tolerance)

    gigabytes = 4e-9 * sum(streams) * elements
    ceiling = stream_ceiling(*streams, elements, in_place)
    return Case(name, ours, peer, check, ceiling, gigabytes, "GB")


def _wide(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if x.dtype == np.uint16:
        x = (x.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(x, np.float64)
