"""linear_cross_entropy: the head with its loss and both gradients, in chunks of rows.

Not equal: the peer composes it of PyTorch's product and cross_entropy, which have the whole logits
in memory, and allocates its gradients in every call, where ours writes into ready ones.
"""

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
    compute_ceiling,
    normal,
    run,
    tensor,
    torch,
    wide,
)

from gristmill.backend import _C
from gristmill.ops.linear_cross_entropy import reference_backward, reference_forward


def case(dtype: str, rows: int, cols: int, v: int) -> Case:
    """Three products. In bfloat16 x and dx are stored so, the weight is rounded while packing."""
    short = dtype == "bfloat16"
    x, w = normal(rows, cols, seed=1), normal(v, cols, seed=2) * np.float32(0.05)
    targets = np.random.default_rng(3).integers(0, v, rows, dtype=np.int32)
    losses, dx, dw = np.zeros(rows, np.float32), np.zeros_like(x), np.zeros_like(w)
    if short:
        x, dx = bf16(x), bf16(dx)
    arrays = [array(z) for z in (losses, dx, dw, x, w, targets)]

    def ours() -> None:
        _C.linear_cross_entropy(*arrays, 1 / rows, dtype)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        part = slice(None, None, 1 if v < 10000 else 17)  # rows in float64; the peer has all of dw
        inputs = wide(x[part]), wide(bf16(w) if short else w), targets[part]
        to_x, to_w = reference_backward(1 / rows, *inputs)
        pairs = [(losses[part], reference_forward(*inputs)), (dx[part], to_x), (dw, to_w)]
        return pairs if v < 10000 else pairs[:2]

    peer, other = None, []
    if torch is not None:
        a = tensor(x).requires_grad_()
        b = tensor(w).to(a.dtype).requires_grad_()
        wanted = tensor(targets).long()

        def peer() -> None:
            value = torch.nn.functional.cross_entropy((a @ b.T).float(), wanted)
            other[:] = [value.item(), *torch.autograd.grad(value, [a, b])]

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        pairs = [(mine, z.float().numpy()) for mine, z in zip((dx, dw), other[1:], strict=True)]
        return [(losses.mean(keepdims=True), np.array([other[0]])), *pairs]

    # a chain of V roundings of chance signs; bfloat16: probabilities are rounded before they are
    # multiplied, the result once more
    tolerance = 2 * UB if short else max(1e-5, 2 * v**0.5 * U)
    check = agreement(ours, twin, tolerance, peer, results)
    flops = 6.0 * rows * cols * v
    name = f"{dtype} {rows}x{cols}, V {v}"
    return Case(name, ours, peer, check, compute_ceiling(flops, dtype), flops / 1e9, "GFLOP")


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        yield case(dtype, 1024, 768, 50257)
        yield case(dtype, 4096, 384, 4096)


if __name__ == "__main__":
    run(cases)
