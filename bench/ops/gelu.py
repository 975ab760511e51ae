"""gelu: forward and backward, exact and as GPT-2 approximates it, float32 and bfloat16."""

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
from gristmill.ops.gelu import APPROXIMATE, reference_backward, reference_forward

SHAPE = (4096, 1024)


def case(dtype: str, backward: bool, kind: str) -> Case:
    x, dout = normal(*SHAPE, seed=1), normal(*SHAPE, seed=2)
    if dtype == "bfloat16":
        x, dout = bf16(x), bf16(dout)
    out, other = np.zeros_like(x), np.zeros_like(x)
    into, x_in, d_in = array(out), array(x), array(dout)
    tanh = kind == "tanh"

    def ours() -> None:
        if backward:
            _C.gelu_backward(into, d_in, x_in, tanh)
        else:
            _C.gelu_forward(into, x_in, tanh)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        inputs = (wide(dout), wide(x)) if backward else (wide(x),)
        return [(out, (reference_backward if backward else reference_forward)(*inputs, tanh))]

    peer = None
    if torch is not None:
        t, d, o = tensor(x), tensor(dout), tensor(other)

        def peer() -> None:
            if backward:
                torch.ops.aten.gelu_backward.grad_input(d, t, approximate=kind, grad_input=o)
            else:
                torch.ops.aten.gelu.out(t, approximate=kind, out=o)

    elif dtype == "float32" and not backward and tanh:

        def peer() -> None:
            np.multiply(x, 1 / (1 + np.exp(-1.5957691 * (x + 0.044715 * x * x * x))), out=other)

    # relative to the largest result, 4: some 40 roundings where the slope is large
    tolerance = UB if dtype == "bfloat16" else 16 * U
    check = agreement(ours, twin, tolerance, peer, lambda: [(out, other)])
    name = f"{dtype} {kind} {'backward' if backward else 'forward'} {SHAPE[0]}x{SHAPE[1]}"
    return streaming(name, ours, peer, check, (2, 1) if backward else (1, 1), x.nbytes / 4)


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for kind in APPROXIMATE:
            for backward in (False, True):
                yield case(dtype, backward, kind)


if __name__ == "__main__":
    run(cases)
