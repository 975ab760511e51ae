"""swiglu: forward and backward; the peer composes silu and a product, as its users do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, bf16, normal, run, streaming, tensor, torch

from gristmill.backend import _C
from gristmill.ops.swiglu import reference_forward

SHAPE = (4096, 1024)


def forward(dtype: str) -> Case:
    gate, up = normal(*SHAPE, seed=1), normal(*SHAPE, seed=2)
    if dtype == "bfloat16":
        gate, up = bf16(gate), bf16(up)
    out, other = np.zeros_like(gate), np.zeros_like(gate)
    arrays = [array(x) for x in (out, gate, up)]
    peer = None
    if torch is not None:
        g, u, o = (tensor(x) for x in (gate, up, other))

        def peer() -> None:
            torch.mul(torch.nn.functional.silu(g), u, out=o)

    elif dtype == "float32":

        def peer() -> None:
            other[...] = reference_forward(gate, up)

    tolerance = 2e-2 if dtype == "bfloat16" else 1e-6
    name = f"{dtype} forward {SHAPE[0]}x{SHAPE[1]}"
    results = [(out, other)]
    return streaming(
        name,
        lambda: _C.swiglu_forward(*arrays),
        peer,
        lambda: results,
        (2, 1),
        out.nbytes / 4,
        tolerance,
    )


def backward() -> Case:
    gate, up, dout = (normal(*SHAPE, seed=i) for i in range(3))
    grads = [np.zeros_like(gate) for _ in range(2)]
    others = [np.zeros_like(gate) for _ in range(2)]
    arrays = [array(x) for x in (*grads, dout, gate, up)]
    peer = None
    if torch is not None:
        g, u, d = (tensor(x) for x in (gate, up, dout))
        dg, du = (tensor(x) for x in others)

        def peer() -> None:
            torch.mul(d, torch.nn.functional.silu(g), out=du)
            torch.ops.aten.silu_backward.grad_input(d * u, g, grad_input=dg)

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        return list(zip(grads, others, strict=True))

    name = f"float32 backward {SHAPE[0]}x{SHAPE[1]}"
    return streaming(name, lambda: _C.swiglu_backward(*arrays), peer, results, (3, 2), gate.size)


def cases() -> Iterator[Case]:
    yield forward("float32")
    yield forward("bfloat16")
    yield backward()


if __name__ == "__main__":
    run(cases)
