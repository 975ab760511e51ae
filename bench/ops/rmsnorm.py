"""rmsnorm: forward and backward, float32 and bfloat16.

Not equal: PyTorch's rms_norm has no out=, so the peer allocates its results in every call, where
ours writes into ready ones; its backward pass also goes through autograd. It has the weight in
the type of x, ours always in float32.
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

from gristmill.backend import _C
from gristmill.ops.rmsnorm import reference_backward, reference_forward

ROWS, COLS, EPS = 4096, 768, 1e-6


def given(dtype: str, seed: int) -> np.ndarray:
    x = normal(ROWS, COLS, seed=seed)
    return bf16(x) if dtype == "bfloat16" else x


def forward(dtype: str) -> Case:
    x, weight = given(dtype, seed=1), normal(COLS, seed=2)
    out, rstd = np.zeros_like(x), np.zeros(ROWS, np.float32)
    arrays = [array(z) for z in (out, rstd, x, weight)]

    def ours() -> None:
        _C.rmsnorm_forward(*arrays, EPS)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        return list(zip((out, rstd), reference_forward(wide(x), wide(weight), EPS), strict=True))

    other: list[np.ndarray] = []
    peer = None
    if torch is not None:
        t, w = tensor(x), tensor(weight).to(tensor(x).dtype)

        def peer() -> None:
            other[:] = [torch.nn.functional.rms_norm(t, (COLS,), w, EPS)]

    elif dtype == "float32":

        def peer() -> None:
            other[:] = [reference_forward(x, weight, EPS)[0]]

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(out, np.asarray(other[0] if torch is None else other[0].float()))]

    # 768 squares in 16 lanes, 48 deep: 1e-5 is 3 times 48 + 8 roundings; bfloat16 is stored in one
    tolerance = UB if dtype == "bfloat16" else 1e-5
    check = agreement(ours, twin, tolerance, peer, results)
    name = f"{dtype} forward {ROWS}x{COLS}"
    return streaming(name, ours, peer, check, (1, 1), x.nbytes / 4)


def backward(dtype: str) -> Case:
    x, dout, weight = given(dtype, seed=1), given(dtype, seed=2), normal(COLS, seed=3)
    dx, dweight = np.zeros_like(x), np.zeros_like(weight)
    rstd = reference_forward(wide(x), wide(weight), EPS)[1].astype(np.float32)
    arrays = [array(z) for z in (dx, dweight, dout, x, weight, rstd)]

    def ours() -> None:
        _C.rmsnorm_backward(*arrays)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        wants = reference_backward(*(wide(z) for z in (dout, x, weight, rstd)))
        return list(zip((dx, dweight), wants, strict=True))

    peer, other = None, []
    if torch is not None:
        t, d = tensor(x).requires_grad_(), tensor(dout)
        w = tensor(weight).to(t.dtype).requires_grad_()
        y = torch.nn.functional.rms_norm(t, (COLS,), w, EPS)

        def peer() -> None:
            other[:] = torch.autograd.grad(y, (t, w), d, retain_graph=True)

    elif dtype == "float32":

        def peer() -> None:
            other[:] = reference_backward(dout, x, weight, rstd)

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        theirs = [np.asarray(z if torch is None else z.float()) for z in other]
        return list(zip((dx, dweight), theirs, strict=True))

    # dweight adds 4096 rows in chunks of 64, 128 roundings: 8e-6, and cancels; bfloat16 in one
    tolerance = UB if dtype == "bfloat16" else 2e-5
    check = agreement(ours, twin, tolerance, peer, results)
    name = f"{dtype} backward {ROWS}x{COLS}"
    return streaming(name, ours, peer, check, (2, 1), x.nbytes / 4)


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        yield forward(dtype)
        yield backward(dtype)


if __name__ == "__main__":
    run(cases)
