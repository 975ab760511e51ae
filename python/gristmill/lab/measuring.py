"""Is a kernel fast? Yours and the table's own in turns, so that a busy neighbour meets both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gristmill.backend import _C
from gristmill.lab import kernels
from gristmill.lab.checking import check, twin_of

SAMPLE = 0.005  # seconds a sample lasts at least
PAUSE = 0.02  # seconds before each: the threads of the one before spin for a while


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds; ratio is table / yours of one round: above 1, yours is faster."""

    op: str
    shape: tuple[int, int]
    threads: int
    milliseconds: float
    table_milliseconds: float
    ratio: float
    ratio_range: tuple[float, float]  # the quartiles

    def __str__(self) -> str:
        low, high = self.ratio_range
        return (
            f"{self.op} {self.shape} float32, {self.threads} threads: yours "
            f"{self.milliseconds:.4f} ms, table {_C.table()} {self.table_milliseconds:.4f} ms, "
            f"{self.ratio:.2f} times as fast (quartiles {low:.2f} to {high:.2f})"
        )


def measure(op: str, shape: tuple[int, int] = (512, 1536), rounds: int = 15) -> Timing:
    """Time the kernel put in place of `op` beside the table's own, on float32 of `shape`.

    Verifies first. Raises ReproError when the kernel is wrong, ValueError when none was put in.
    """
    if rounds < 2:
        raise ValueError(f"rounds must be at least 2 for a spread, got {rounds}")
    entry, twin = twin_of(op)
    address = kernels.address(entry)
    check(entry)
    rng = np.random.default_rng(0)
    inputs = [
        _C.from_numpy(rng.standard_normal(shape, dtype=np.float32)) for _ in range(twin.inputs)
    ]
    out, call = _C.empty(shape, "float32"), getattr(_C, entry)
    pairs = []
    try:
        calls = max(1, int(SAMPLE / max(_seconds(lambda: call(out, *inputs), 2), 1e-7)))
        for _ in range(rounds):
            pair = []
            for where in (address, None):
                _C.swap(entry, where)
                pair.append(_seconds(lambda: call(out, *inputs), calls))
            pairs.append(pair)
    finally:
        _C.swap(entry, address)
    own, table = zip(*pairs, strict=True)
    low, ratio, high = statistics.quantiles([t / o for o, t in pairs], n=4)
    middle = [1e3 * statistics.median(x) for x in (own, table)]
    return Timing(entry, shape, _C.threads(), middle[0], middle[1], ratio, (low, high))


def _seconds(f: Callable[[], object], calls: int) -> float:
    """Seconds of one call, the mean of `calls`, after a pause and a call that warms up."""
    time.sleep(PAUSE)
    f()
    start = time.perf_counter()
    for _ in range(calls):
        f()
    return (time.perf_counter() - start) / calls
