"""cross_entropy: forward and backward on logits, and the head with its loss in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from bench.measure import (
    Case,
    array,
    bf16,
    close,
    compute_ceiling,
    normal,
    run,
    streaming,
    tensor,
    torch,
)

from gristmill.backend import _C
from gristmill.ops.cross_entropy import reference_forward

ROWS = 1024


def ids(rows: int, v: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, v, rows, dtype=np.int32)


def loss(v: int) -> Case:
    """Forward and backward of the mean: the logits are read twice, their gradient written once."""
    logits, targets = normal(ROWS, v), ids(ROWS, v)
    losses, lse = np.zeros(ROWS, np.float32), np.zeros(ROWS, np.float32)
    dlogits = np.zeros_like(logits)
    out, kept, x, t, d = (array(z) for z in (losses, lse, logits, targets, dlogits))
    each = array(np.array([1 / ROWS], np.float32)).view((ROWS,), (0,))

    def ours() -> None:
        _C.cross_entropy_forward(out, kept, x, t)
        _C.cross_entropy_backward(d, each, x, kept, t)

    other: list[Any] = []
    if torch is not None:
        leaf, wanted = tensor(logits).requires_grad_(), tensor(targets).long()

        def peer() -> None:
            value = torch.nn.functional.cross_entropy(leaf, wanted)
            other[:] = [value.item(), torch.autograd.grad(value, leaf)[0].numpy()]

    else:

        def peer() -> None:
            each, lse = reference_forward(logits, targets)
            gradient = np.exp(logits - lse[:, None]) / ROWS
            gradient[np.arange(ROWS), targets] -= 1 / ROWS
            other[:] = [each.mean(), gradient]

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(losses.mean(keepdims=True), np.array([other[0]])), (dlogits, other[1])]

    name = f"forward + backward {ROWS}x{v}"
    return streaming(name, ours, peer, results, (2, 1), logits.size, 1e-4)


def head(dtype: str, cols: int, v: int) -> Case:
    """Loss and both gradients: three products."""
    rows = 4 * ROWS
    x, w, targets = (
        normal(rows, cols, seed=1),
        normal(v, cols, seed=2) * np.float32(0.05),
        ids(rows, v),
    )
    losses, dx, dw = np.zeros(rows, np.float32), np.zeros_like(x), np.zeros_like(w)
    if dtype == "bfloat16":
        x, dx = bf16(x), bf16(dx)
    arrays = [array(z) for z in (losses, dx, dw, x, w, targets)]

    def ours() -> None:
        _C.linear_cross_entropy(*arrays, 1 / rows, dtype)

    peer, other = None, []
    if torch is not None:
        short = tensor(x).dtype
        a, b = tensor(x).requires_grad_(), tensor(w).to(short).requires_grad_()
        wanted = tensor(targets).long()

        def peer() -> None:
            value = torch.nn.functional.cross_entropy((a @ b.T).float(), wanted)
            other[:] = [value.item(), *torch.autograd.grad(value, [a, b])]

    def check() -> None:
        ours()
        if peer is not None:
            peer()
            allowed = 5e-2 if dtype == "bfloat16" else 1e-4
            close(losses.mean(keepdims=True), np.array([other[0]]), allowed)
            close(dx, other[1].float().numpy(), allowed)
            close(dw, other[2].float().numpy(), allowed)

    flops = 6.0 * rows * cols * v
    ceiling = compute_ceiling(flops, dtype)
    return Case(
        f"{dtype} head {rows}x{cols}, V {v}", ours, peer, check, ceiling, flops / 1e9, "GFLOP"
    )


def cases() -> Iterator[Case]:
    yield loss(4096)
    yield loss(50257)
    yield head("float32", 384, 4096)
    yield head("bfloat16", 384, 4096)


if __name__ == "__main__":
    run(cases)
