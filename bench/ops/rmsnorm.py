"""rmsnorm: forward and backward, float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, bf16, normal, run, streaming, tensor, torch

from gristmill.backend import _C
from gristmill.ops.rmsnorm import reference_forward

ROWS, COLS, EPS = 4096, 768, 1e-6


def forward(dtype: str) -> Case:
    x, weight = normal(ROWS, COLS, seed=1), normal(COLS, seed=2)
    if dtype == "bfloat16":
        x = bf16(x)
    out, rstd = np.zeros_like(x), np.zeros(ROWS, np.float32)
    arrays = [array(z) for z in (out, rstd, x, weight)]
    other: list[np.ndarray] = []
    if torch is not None:
        t, w = tensor(x), tensor(weight).to(tensor(x).dtype)

        def peer() -> None:
            other[:] = [torch.nn.functional.rms_norm(t, (COLS,), w, EPS)]

    elif dtype == "float32":

        def peer() -> None:
            other[:] = [reference_forward(x, weight, EPS)[0]]

    else:
        peer = None
    tolerance = 2e-2 if dtype == "bfloat16" else 1e-5
    return streaming(
        f"{dtype} forward {ROWS}x{COLS}",
        lambda: _C.rmsnorm_forward(*arrays, EPS),
        peer,
        lambda: [(out, np.asarray(other[0] if torch is None else other[0].float()))],
        (1, 1),
        x.nbytes / 4,
        tolerance,
    )


def backward() -> Case:
    x, dout, weight = normal(ROWS, COLS, seed=1), normal(ROWS, COLS, seed=2), normal(COLS, seed=3)
    dx, dweight = np.zeros_like(x), np.zeros_like(weight)
    rstd = reference_forward(x, weight, EPS)[1].astype(np.float32)
    arrays = [array(z) for z in (dx, dweight, dout, x, weight, rstd)]
    peer, other = None, []
    if torch is not None:
        leaves = [tensor(z).requires_grad_() for z in (x, weight)]
        y = torch.nn.functional.rms_norm(leaves[0], (COLS,), leaves[1], EPS)
        d = tensor(dout)

        def peer() -> None:
            other[:] = torch.autograd.grad(y, leaves, d, retain_graph=True)

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(dx, other[0].numpy()), (dweight, other[1].numpy())]

    name = f"float32 backward {ROWS}x{COLS}"
    return streaming(
        name, lambda: _C.rmsnorm_backward(*arrays), peer, results, (2, 1), x.size, 1e-4
    )


def cases() -> Iterator[Case]:
    yield forward("float32")
    yield forward("bfloat16")
    yield backward()


if __name__ == "__main__":
    run(cases)
