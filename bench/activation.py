"""The cases of activations whose gradient comes from their result: relu, tanh, sigmoid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from bench.measure import (
    UB,
    Case,
    U,
    agreement,
    array,
    bf16,
    normal,
    streaming,
    tensor,
    torch,
    wide,
)

SHAPE = (4096, 1024)


@dataclass(frozen=True)
class Activation:
    """Calls of the table, (out, x) and (dx, dout, out); twins; PyTorch's calls with the same
    arguments, made only where it is installed; `plain` is NumPy's forward pass."""

    forward: Callable[[Any, Any], object]
    backward: Callable[[Any, Any, Any], object]
    twin: tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]
    peer: tuple[Callable[[Any, Any], object], Callable[[Any, Any, Any], object]]
    plain: Callable[[Any, Any], object]
    roundings: int  # of float32, in both passes


def activation_cases(a: Activation) -> Iterator[Case]:
    """Forward and backward, float32 and bfloat16."""
    for dtype in ("float32", "bfloat16"):
        for backward in (False, True):
            yield _case(a, dtype, backward)


def _case(a: Activation, dtype: str, backward: bool) -> Case:
    x, dout = normal(*SHAPE, seed=1), normal(*SHAPE, seed=2)
    if backward:
        x[...] = a.twin[0](wide(x))  # what the forward pass gave
    if dtype == "bfloat16":
        x, dout = bf16(x), bf16(dout)
    inputs = [dout, x] if backward else [x]
    out, other = np.zeros_like(x), np.zeros_like(x)
    into, given = array(out), [array(v) for v in inputs]

    def ours() -> None:
        (a.backward if backward else a.forward)(into, *given)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(out, a.twin[backward](*(wide(v) for v in inputs)))]

    peer = None
    if torch is not None:
        call, o, theirs = a.peer[backward], tensor(other), [tensor(v) for v in inputs]

        def peer() -> None:
            call(o, *theirs)

    elif dtype == "float32" and not backward:

        def peer() -> None:
            a.plain(other, x)

    # bfloat16 is computed in float32 and rounded once
    tolerance = UB if dtype == "bfloat16" else a.roundings * U
    check = agreement(ours, twin, tolerance, peer, lambda: [(out, other)])
    name = f"{dtype} {'backward' if backward else 'forward'} {SHAPE[0]}x{SHAPE[1]}"
    return streaming(name, ours, peer, check, (2, 1) if backward else (1, 1), x.nbytes / 4)
