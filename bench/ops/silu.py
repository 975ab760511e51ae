"""silu: forward and backward, float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import (
    UB,
    Case,
    U,
    agreement,
    array,
    bf16,
    normal,
    run,
    streaming,
    tensor,
    torch,
    wide,
)

from gristmill.backend import _C
from gristmill.ops.silu import reference_backward, reference_forward

SHAPE = (4096, 1024)


def case(dtype: str, backward: bool) -> Case:
    x, dout = normal(*SHAPE, seed=1), normal(*SHAPE, seed=2)
    if dtype == "bfloat16":
        x, dout = bf16(x), bf16(dout)
    out, other = np.zeros_like(x), np.zeros_like(x)
    into, x_in, d_in = array(out), array(x), array(dout)

    def ours() -> None:
        if backward:
            _C.silu_backward(into, d_in, x_in)
        else:
            _C.silu_forward(into, x_in)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        inputs = (wide(dout), wide(x)) if backward else (wide(x),)
        return [(out, (reference_backward if backward else reference_forward)(*inputs))]

    peer = None
    if torch is not None:
        t, d, o = tensor(x), tensor(dout), tensor(other)

        def peer() -> None:
            if backward:
                torch.ops.aten.silu_backward.grad_input(d, t, grad_input=o)
            else:
                torch.ops.aten.silu.out(t, out=o)

    elif dtype == "float32" and not backward:

        def peer() -> None:
            np.divide(x, 1 + np.exp(-x), out=other)

    # computed in float32 in some 16 roundings, stored as bfloat16 in one
    tolerance = UB if dtype == "bfloat16" else 16 * U
    check = agreement(ours, twin, tolerance, peer, lambda: [(out, other)])
    name = f"{dtype} {'backward' if backward else 'forward'} {SHAPE[0]}x{SHAPE[1]}"
    return streaming(name, ours, peer, check, (2, 1) if backward else (1, 1), x.nbytes / 4)


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for backward in (False, True):
            yield case(dtype, backward)


if __name__ == "__main__":
    run(cases)
