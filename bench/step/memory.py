"""Peak memory and page faults of a few steps, each side in a process of its own.

    python -m bench.step.memory SIDE DTYPE [--recompute] -- SHAPE...

A child prints one JSON line: the high-water mark of its resident memory, before and after.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3


def high_water() -> int:
    """Most bytes this process has had in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no VmHWM: peak memory is measured on Linux")


def measure(side: str, shape: Any, dtype: str, recompute: bool = False) -> dict[str, Any]:
    """What the child says about three steps of `side` (ours, torch, torch-compile)."""
    words = [side, dtype, *(["--recompute"] if recompute else []), *map(str, astuple(shape))]
    command = [sys.executable, "-m", "bench.step.memory", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"memory of {side}: {done.stderr.strip()[-500:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def child(side: str, shape: Any, dtype: str, recompute: bool) -> dict[str, Any]:
    """Make the steps and look."""
    from bench.step import shapes

    if side == "ours":
        before = high_water()
        step = shapes.ours(shape.build(), dtype, recompute)
    else:
        import torch
        from bench.step import torch_models

        import gristmill as gm

        torch.set_num_threads(gm.get_num_threads())
        before = high_water()
        step = torch_models.theirs(
            torch_models.peer(shape.build()), dtype, side == "torch-compile", recompute
        )
    counted = shapes.Counted(step, shape.random_batch())
    for _ in range(STEPS):
        counted()
    return {
        "before_bytes": before, "peak_bytes": high_water(),
        "page_faults": counted.faults, "losses": counted.losses,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "torch", "torch-compile"])
    parser.add_argument("dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("kind")
    parser.add_argument("sizes", type=int, nargs=5)
    args = parser.parse_args()
    from bench.step.shapes import Shape

    told = child(args.side, Shape(args.kind, *args.sizes), args.dtype, args.recompute)
    print(json.dumps(told))
