"""mse: the mean, and the gradient of the prediction, float32 and bfloat16.

Not equal: PyTorch's mean of the squares cannot be given memory, so it allocates in every call.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import (
    UB,
    Case,
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
from bench.peers_numpy import mse_forward

from gristmill.backend import _C
from gristmill.ops.mse import reference_backward, reference_forward

N = 4096 * 1024
MEAN = 1  # PyTorch's number for reduction="mean"


def case(dtype: str, backward: bool) -> Case:
    inputs = [np.ones(1, np.float32), normal(N, seed=1), normal(N, seed=2)]
    if dtype == "bfloat16":
        inputs = [bf16(v) for v in inputs]
    dloss, x, target = inputs
    out = np.zeros(N if backward else 1, x.dtype)
    other = np.zeros_like(out)
    into, d, a, b = (array(v) for v in (out, dloss, x, target))

    def ours() -> None:
        if backward:
            _C.mse_backward(into, None, d, a, b)
        else:
            _C.mse_forward(into, a, b)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        dl, p, q = (wide(v) for v in inputs)
        return [(out, reference_backward(dl, p, q)[0] if backward else reference_forward(p, q))]

    peer = None
    if torch is not None:
        o, td, tx, tt = (tensor(v) for v in (other, dloss, x, target))
        value = o[0]

        def peer() -> None:
            if backward:
                torch.ops.aten.mse_loss_backward.grad_input(td.view(()), tx, tt, MEAN, grad_input=o)
            else:
                value.copy_(torch.ops.aten.mse_loss(tx, tt, MEAN))

    elif dtype == "float32" and not backward:
        peer = mse_forward(other, x, target)

    # a lane's 1024 / 4 steps, 256 chunks: 512 roundings, 3e-5; PyTorch rounds the difference too
    tolerance = UB if dtype == "bfloat16" else 3e-5
    check = agreement(ours, twin, tolerance, peer, lambda: [(out, other)])
    name = f"{dtype} {'backward' if backward else 'forward'} {N}"
    return streaming(name, ours, peer, check, (2, 1) if backward else (2, 0), x.nbytes / 4)


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for backward in (False, True):
            yield case(dtype, backward)


if __name__ == "__main__":
    run(cases)
