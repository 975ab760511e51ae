"""attention: forward, forward and backward, and decoding against a cache; float32 and bfloat16.

Not equal: scaled_dot_product_attention has no out=, so the peer allocates its results in every
call, where ours writes into ready ones; its backward pass also goes through autograd.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from bench.measure import (
    UB,
    Case,
    agreement,
    array,
    bf16,
    compute_ceiling,
    normal,
    run,
    stream_ceiling,
    tensor,
    torch,
    wide,
)

from gristmill.backend import _C
from gristmill.ops.attention import reference_backward, reference_forward

# B, T, H, G, D
SHAPES = [(4, 256, 12, 12, 64), (1, 1024, 12, 12, 64), (1, 4096, 12, 12, 64)]
MORE = [(16, 256, 6, 6, 64), (1, 1024, 12, 4, 64)]
# T: keys in the cache; the last is 268 MB in float32, past any cache of the processor
DECODE = [(8, 1024, 12, 4, 64), (1, 4096, 12, 4, 64), (32, 4096, 12, 4, 64)]


def given(dtype: str, *shape: int, seed: int) -> np.ndarray:
    x = normal(*shape, seed=seed)
    return bf16(x) if dtype == "bfloat16" else x


def tolerance(x: np.ndarray) -> float:
    """float32: a sum of T in 64 dimensions. bfloat16: probabilities and their gradient are rounded
    before they are multiplied, the result once more."""
    return 2 * UB if x.itemsize == 2 else 1e-5


def peer_inputs(*arrays: np.ndarray) -> list[Any]:
    """(B, H, T, D) views of the same memory."""
    return [tensor(x).transpose(1, 2) for x in arrays]


def last_group(x: np.ndarray, groups: int) -> np.ndarray:
    """The last batch's heads of its last group: the twin holds a (T, S) matrix for each head."""
    return x[-1:, :, -(x.shape[2] // groups) :]


def forward(dtype: str, b: int, t: int, h: int, g: int, d: int, queries: int | None = None) -> Case:
    n = t if queries is None else queries
    q = given(dtype, b, n, h, d, seed=1)
    k, v = (given(dtype, b, t, g, d, seed=i) for i in (2, 3))
    out, scale = np.zeros_like(q), d**-0.5
    arrays = [array(x) for x in (out, q, k, v)]

    def ours() -> None:
        _C.attention_forward(arrays[0], None, *arrays[1:], None, scale, True)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        inputs = [wide(last_group(x, g)) for x in (q, k, v)]
        return [(last_group(out, g), reference_forward(*inputs, None, scale, True)[0])]

    peer, result = None, None
    if torch is not None:
        qt, kt, vt = peer_inputs(q, k, v)
        causal = queries is None

        def peer() -> Any:
            nonlocal result
            sdpa = torch.nn.functional.scaled_dot_product_attention
            result = sdpa(qt, kt, vt, is_causal=causal, enable_gqa=g != h)

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(out, result.transpose(1, 2).float().numpy())]

    check = agreement(ours, twin, tolerance(q), peer, results)
    if queries is None:
        flops = 2.0 * b * h * d * t * (t + 1)  # two products over the visible half
        work = compute_ceiling(flops, dtype), flops / 1e9, "GFLOP"
        name = f"{dtype} forward B{b} T{t} H{h}/{g} D{d}"
    else:
        size = b * t * g * d / (2 if dtype == "bfloat16" else 1)
        work = stream_ceiling(2, 0, size), 8e-9 * size, "GB"
        name = f"{dtype} decode B{b} S{t} H{h}/{g} D{d}"
    return Case(name, ours, peer, check, *work)


def training(dtype: str, b: int, t: int, h: int, g: int, d: int) -> Case:
    q, dout = (given(dtype, b, t, h, d, seed=i) for i in (1, 4))
    k, v = (given(dtype, b, t, g, d, seed=i) for i in (2, 3))
    out, scale = np.zeros_like(q), d**-0.5
    lse = np.zeros((b, h, t), np.float32)
    grads = [np.zeros_like(x) for x in (q, k, v)]
    inputs = [array(x) for x in (q, k, v)]
    outs, rest = [array(x) for x in grads], [array(out), array(lse)]
    given_dout = array(dout)

    def ours() -> None:
        _C.attention_forward(rest[0], rest[1], *inputs, None, scale, True)
        _C.attention_backward(*outs, given_dout, *inputs, *rest, None, scale, True)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        parts = [wide(last_group(x, g)) for x in (dout, q, k, v)]
        wants = reference_backward(*parts, None, scale, True)
        return [(last_group(x, g), want) for x, want in zip(grads, wants, strict=True)]

    peer, result = None, None
    if torch is not None:
        leaves = [x.detach().requires_grad_() for x in peer_inputs(q, k, v)]
        sdpa = torch.nn.functional.scaled_dot_product_attention
        dy = peer_inputs(dout)[0]

        def peer() -> None:
            nonlocal result
            y = sdpa(*leaves, is_causal=True, enable_gqa=g != h)
            result = torch.autograd.grad(y, leaves, dy)

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        theirs = [x.transpose(1, 2).float().numpy() for x in result]
        return list(zip(grads, theirs, strict=True))

    check = agreement(ours, twin, 2 * tolerance(q), peer, results)
    flops = 7.0 * b * h * d * t * (t + 1)  # two products and five over the visible half
    name = f"{dtype} forward+backward B{b} T{t} H{h}/{g} D{d}"
    return Case(name, ours, peer, check, compute_ceiling(flops, dtype), flops / 1e9, "GFLOP")


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for shape in (*SHAPES, *MORE):
            yield forward(dtype, *shape)
        for shape in SHAPES:
            yield training(dtype, *shape)
        for shape in DECODE:
            yield forward(dtype, *shape, queries=1)


if __name__ == "__main__":
    run(cases)
