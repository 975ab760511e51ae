"""silu: forward and backward, float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, bf16, normal, run, streaming, tensor, torch

from gristmill.backend import _C

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

    tolerance = 1e-2 if dtype == "bfloat16" else 1e-6
    elements = x.nbytes / 4
    name = f"{dtype} {'backward' if backward else 'forward'} {SHAPE[0]}x{SHAPE[1]}"
    streams = (2, 1) if backward else (1, 1)
    return streaming(name, ours, peer, lambda: [(out, other)], streams, elements, tolerance)


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for backward in (False, True):
            yield case(dtype, backward)


if __name__ == "__main__":
    run(cases)
