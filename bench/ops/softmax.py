"""softmax: forward and backward, float32 and bfloat16."""

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
from gristmill.ops.softmax import reference_backward, reference_forward

SHAPE = (4096, 1024)


def case(dtype: str, backward: bool) -> Case:
    """Backward takes any numbers for the result of the forward pass: the work is the same."""
    x, dout = normal(*SHAPE, seed=1), normal(*SHAPE, seed=2)
    if dtype == "bfloat16":
        x, dout = bf16(x), bf16(dout)
    out, other = np.zeros_like(x), np.zeros_like(x)
    into, x_in, d_in = array(out), array(x), array(dout)

    def ours() -> None:
        if backward:
            _C.softmax_backward(into, d_in, x_in)
        else:
            _C.softmax_forward(into, x_in)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        inputs = (wide(dout), wide(x)) if backward else (wide(x),)
        return [(out, (reference_backward if backward else reference_forward)(*inputs))]

    peer = None
    if torch is not None:
        t, d, o = tensor(x), tensor(dout), tensor(other)

        def peer() -> None:
            if backward:
                torch.ops.aten._softmax_backward_data.out(d, t, -1, t.dtype, grad_input=o)
            else:
                torch.ops.aten._softmax.out(t, -1, False, out=o)

    elif dtype == "float32" and not backward:

        def peer() -> None:
            np.exp(x - x.max(axis=1, keepdims=True), out=other)
            np.divide(other, other.sum(axis=1, keepdims=True), out=other)

    # sums of 1024 in lanes: some 70 roundings; bfloat16 is stored in one
    tolerance = UB if dtype == "bfloat16" else 80 * U
    check = agreement(ours, twin, tolerance, peer, lambda: [(out, other)])
    name = f"{dtype} {'backward' if backward else 'forward'} {SHAPE[0]}x{SHAPE[1]}"
    return streaming(name, ours, peer, check, (2, 1) if backward else (1, 1), x.nbytes / 4)


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for backward in (False, True):
            yield case(dtype, backward)


if __name__ == "__main__":
    run(cases)
