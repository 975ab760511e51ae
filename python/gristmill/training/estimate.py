"""What training will take on this machine: speed measured on real steps, memory that is free."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from gristmill._tensor import zeros
from gristmill.models.causal import CausalLM
from gristmill.ops.matmul import matmul
from gristmill.training.trainer import Data, Trainer, TrainerConfig

WARM, FEWEST, MOST = 3, 5, 60  # steps
SECONDS = 4.0  # that measuring may take
LOOKS = 0.04  # share of training that goes into looks at validation and checkpoints
EDGE = 1024  # of the square product that stands for the machine's peak


@dataclass(frozen=True)
class Speed:
    """Measured on real steps: seconds of one (median), and how many were timed."""

    seconds_per_step: float
    tokens_per_second: float
    timed: int


def measure_speed(
    model: CausalLM, data: Data, config: TrainerConfig, seconds: float = SECONDS
) -> Speed:
    """Train `model` for a few steps of `config` and time them; it is of no use afterwards."""
    warm = _steps(model, data, config, WARM)
    count = max(FEWEST, min(MOST, int(seconds / warm[-1][0])))
    timed = _steps(model, data, config, count)
    median = statistics.median(second for second, _ in timed)
    return Speed(median, timed[0][1] / median, count)


def _steps(
    model: CausalLM, data: Data, config: TrainerConfig, count: int
) -> list[tuple[float, int]]:
    """Return (seconds, tokens) of each of `count` steps."""
    short = TrainerConfig(
        steps=count, lr=config.lr, dtype=config.dtype, accumulate=config.accumulate,
        recompute=config.recompute, shards=config.shards, dropout=config.dropout, progress=False,
    )  # fmt: skip
    rows = Trainer(model, data, config=short).fit().rows
    return [(row["tokens"] / row["tokens_per_second"], row["tokens"]) for row in rows]


def steps_for(minutes: float, seconds_per_step: float) -> int:
    """Return the steps that fit into `minutes` with looks and checkpoints, at least 10."""
    return max(10, round(60.0 * minutes * (1.0 - LOOKS) / seconds_per_step))


def seconds_for(steps: int, seconds_per_step: float) -> float:
    """Return how long training of `steps` takes with looks and checkpoints."""
    return steps * seconds_per_step / (1.0 - LOOKS)


def resolve_dtype(wanted: str) -> str:
    """Return "f32" or "bf16"; for "auto" bf16 where the active kernels have its dot products.

    Elsewhere bf16 is computed through f32, which only costs time.
    """
    from gristmill import _C

    if wanted != "auto":
        return wanted
    return "bf16" if _C.table() == "avx512bf16" else "f32"


def peak_flops(dtype: str, seconds: float = 0.5) -> float:
    """Return FLOP/s of the best of some products of two EDGE x EDGE matrices, on all threads."""
    a, b = zeros(EDGE, EDGE), zeros(EDGE, EDGE)
    compute = "float32" if dtype == "f32" else "bfloat16"
    matmul(a, b, compute)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        matmul(a, b, compute)
        best = min(best, time.perf_counter() - start)
    return 2.0 * EDGE**3 / best


def free_memory() -> int:
    """Return bytes that this process may still use: what the kernel calls available, or less in a
    control group with a limit. Where neither can be read, all memory of the machine.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    meminfo = _read("/proc/meminfo")
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    group = _read("/sys/fs/cgroup/memory.max").strip()
    used = _read("/sys/fs/cgroup/memory.current").strip()
    if group.isdigit() and used.isdigit():
        limits.append(max(0, int(group) - int(used)))
    return min(limits)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
