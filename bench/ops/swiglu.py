"""swiglu: forward and backward; the peer composes silu and a product, as its users do."""

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
from gristmill.ops.swiglu import reference_backward, reference_forward

SHAPE = (4096, 1024)


def case(dtype: str, backward: bool) -> Case:
    gate, up, dout = (normal(*SHAPE, seed=i) for i in range(3))
    if dtype == "bfloat16":
        gate, up, dout = (bf16(x) for x in (gate, up, dout))
    results, others = ([np.zeros_like(gate) for _ in range(1 + backward)] for _ in range(2))
    inputs = (dout, gate, up) if backward else (gate, up)
    arrays = [array(x) for x in (*results, *inputs)]

    def ours() -> None:
        (_C.swiglu_backward if backward else _C.swiglu_forward)(*arrays)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        given = [wide(x) for x in inputs]
        wants = reference_backward(*given) if backward else [reference_forward(*given)]
        return list(zip(results, wants, strict=True))

    peer = None
    if torch is not None:
        d, g, u = (tensor(x) for x in (dout, gate, up))
        outs, between = [tensor(x) for x in others], torch.empty_like(g)

        def peer() -> None:
            torch.ops.aten.silu.out(g, out=between)
            if not backward:
                torch.mul(between, u, out=outs[0])
                return
            torch.mul(d, between, out=outs[1])
            torch.mul(d, u, out=between)
            torch.ops.aten.silu_backward.grad_input(between, g, grad_input=outs[0])

    elif dtype == "float32":

        def peer() -> None:
            wants = reference_backward(*inputs) if backward else [reference_forward(*inputs)]
            for other, want in zip(others, wants, strict=True):
                other[...] = want

    # computed in float32 in some 16 roundings, stored as bfloat16 in one
    tolerance = UB if dtype == "bfloat16" else 16 * U
    check = agreement(ours, twin, tolerance, peer, lambda: list(zip(results, others, strict=True)))
    name = f"{dtype} {'backward' if backward else 'forward'} {SHAPE[0]}x{SHAPE[1]}"
    streams = (3, 2) if backward else (2, 1)
    return streaming(name, ours, peer, check, streams, gate.nbytes / 4)


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for backward in (False, True):
            yield case(dtype, backward)


if __name__ == "__main__":
    run(cases)
