"""layernorm: forward and backward, float32 and bfloat16.

Not equal: PyTorch's layer_norm has no out=, so the peer allocates its results in every call,
where ours writes into ready ones; its backward pass also goes through autograd. It has weight and
bias in the type of x, ours always in float32; their bfloat16 gradients are summed in bfloat16 and
off by some 5 %, so only dx is compared there.
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
from gristmill.ops.layernorm import reference_backward, reference_forward

ROWS, COLS, EPS = 4096, 768, 1e-5


def given(dtype: str, seed: int) -> np.ndarray:
    x = normal(ROWS, COLS, seed=seed)
    return bf16(x) if dtype == "bfloat16" else x


def forward(dtype: str) -> Case:
    x, weight, bias = given(dtype, seed=1), normal(COLS, seed=2), normal(COLS, seed=3)
    out, (mean, rstd) = np.zeros_like(x), np.zeros((2, ROWS), np.float32)
    arrays = [array(z) for z in (out, mean, rstd, x, weight, bias)]

    def ours() -> None:
        _C.layernorm_forward(*arrays, EPS)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        wants = reference_forward(wide(x), wide(weight), wide(bias), EPS)
        return list(zip((out, mean, rstd), wants, strict=True))

    other: list[np.ndarray] = []
    peer = None
    if torch is not None:
        t = tensor(x)
        w, b = (tensor(z).to(t.dtype) for z in (weight, bias))

        def peer() -> None:
            other[:] = [torch.nn.functional.layer_norm(t, (COLS,), w, b, EPS)]

    elif dtype == "float32":

        def peer() -> None:
            other[:] = [reference_forward(x, weight, bias, EPS)[0]]

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(out, np.asarray(other[0] if torch is None else other[0].float()))]

    # two sums of 768 in 16 lanes, 48 deep: 1e-5 is 3 times 48 + 8 roundings; bfloat16 in one
    tolerance = UB if dtype == "bfloat16" else 1e-5
    check = agreement(ours, twin, tolerance, peer, results)
    name = f"{dtype} forward {ROWS}x{COLS}"
    return streaming(name, ours, peer, check, (1, 1), x.nbytes / 4)


def backward(dtype: str) -> Case:
    x, dout, weight = given(dtype, seed=1), given(dtype, seed=2), normal(COLS, seed=3)
    dx, (dweight, dbias) = np.zeros_like(x), np.zeros((2, COLS), np.float32)
    moments = reference_forward(wide(x), wide(weight), 0.0, EPS)[1:]
    mean, rstd = (z.astype(np.float32) for z in moments)
    arrays = [array(z) for z in (dx, dweight, dbias, dout, x, weight, mean, rstd)]

    def ours() -> None:
        _C.layernorm_backward(*arrays)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        wants = reference_backward(*(wide(z) for z in (dout, x, weight, mean, rstd)))
        return list(zip((dx, dweight, dbias), wants, strict=True))

    peer, other = None, []
    if torch is not None:
        t, d = tensor(x).requires_grad_(), tensor(dout)
        w = tensor(weight).to(t.dtype).requires_grad_()
        b = torch.zeros_like(w).requires_grad_()
        y = torch.nn.functional.layer_norm(t, (COLS,), w, b, EPS)

        def peer() -> None:
            other[:] = torch.autograd.grad(y, (t, w, b), d, retain_graph=True)

    elif dtype == "float32":

        def peer() -> None:
            other[:] = reference_backward(dout, x, weight, mean, rstd)

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        theirs = [np.asarray(z if torch is None else z.float()) for z in other]
        pairs = list(zip((dx, dweight, dbias), theirs, strict=True))
        return pairs[:1] if dtype == "bfloat16" and torch is not None else pairs

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
