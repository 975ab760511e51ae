"""attention: forward, backward, and decoding against a cache; float32 and bfloat16."""

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
    stream_ceiling,
    tensor,
    torch,
)

from gristmill.backend import _C
from gristmill.ops.attention import reference_forward

# B, T, H, G, D
SHAPES = [(4, 256, 12, 12, 64), (16, 256, 6, 6, 64), (1, 1024, 12, 12, 64), (1, 1024, 12, 4, 64)]
DECODE = [(8, 1024, 12, 4, 64)]  # T: keys in the cache


def given(dtype: str, *shape: int, seed: int) -> np.ndarray:
    x = normal(*shape, seed=seed)
    return bf16(x) if dtype == "bfloat16" else x


def peer_inputs(*arrays: np.ndarray) -> list[Any]:
    """(B, H, T, D) views of the same memory."""
    return [tensor(x).transpose(1, 2) for x in arrays]


def forward(dtype: str, b: int, t: int, h: int, g: int, d: int, queries: int | None = None) -> Case:
    n = t if queries is None else queries
    q = given(dtype, b, n, h, d, seed=1)
    k, v = (given(dtype, b, t, g, d, seed=i) for i in (2, 3))
    out, scale = np.zeros_like(q), d**-0.5
    arrays = [array(x) for x in (out, q, k, v)]

    def ours() -> None:
        _C.attention_forward(arrays[0], None, *arrays[1:], None, scale, True)

    peer, result = None, None
    if torch is not None:
        qt, kt, vt = peer_inputs(q, k, v)
        causal = queries is None

        def peer() -> Any:
            nonlocal result
            sdpa = torch.nn.functional.scaled_dot_product_attention
            result = sdpa(qt, kt, vt, is_causal=causal, enable_gqa=g != h)

    def check() -> None:
        ours()
        if peer is not None:
            peer()
            other = result.transpose(1, 2).float().numpy()
        else:
            other = reference_forward(
                *(x.astype(np.float64) for x in (q, k, v)), None, scale, True
            )[0]
        close(out, other, 3e-2 if dtype == "bfloat16" else 1e-5)

    if queries is None:
        flops = 2.0 * b * h * d * t * (t + 1)  # two products over the visible half
        work = compute_ceiling(flops, dtype), flops / 1e9, "GFLOP"
        name = f"{dtype} forward B{b} T{t} H{h}/{g} D{d}"
    else:
        size = b * t * g * d / (2 if dtype == "bfloat16" else 1)
        work = stream_ceiling(2, 0, size), 8e-9 * size, "GB"
        name = f"{dtype} decode B{b} S{t} H{h}/{g} D{d}"
    return Case(name, ours, peer, check, *work)


def backward(dtype: str, b: int, t: int, h: int, g: int, d: int) -> Case:
    q, dout = (given(dtype, b, t, h, d, seed=i) for i in (1, 4))
    k, v = (given(dtype, b, t, g, d, seed=i) for i in (2, 3))
    out, scale = np.zeros_like(q), d**-0.5
    lse = np.zeros((b, h, t), np.float32)
    grads = [np.zeros_like(x) for x in (q, k, v)]
    inputs = [array(x) for x in (q, k, v)]
    outs, rest = [array(x) for x in grads], [array(out), array(lse)]
    given_dout = array(dout)
    _C.attention_forward(rest[0], rest[1], *inputs, None, scale, True)

    def ours() -> None:
        _C.attention_backward(*outs, given_dout, *inputs, *rest, None, scale, True)

    peer, result = None, None
    if torch is not None:
        leaves = [x.detach().requires_grad_() for x in peer_inputs(q, k, v)]
        sdpa = torch.nn.functional.scaled_dot_product_attention
        y = sdpa(*leaves, is_causal=True, enable_gqa=g != h)
        dy = peer_inputs(dout)[0]

        def peer() -> None:
            nonlocal result
            result = torch.autograd.grad(y, leaves, dy, retain_graph=True)

    def check() -> None:
        ours()
        if peer is not None:
            peer()
            for mine, other in zip(grads, result, strict=True):
                close(
                    mine, other.transpose(1, 2).float().numpy(), 6e-2 if q.itemsize == 2 else 1e-4
                )

    flops = 5.0 * b * h * d * t * (t + 1)  # five products
    ceiling = compute_ceiling(flops, dtype)
    name = f"{dtype} backward B{b} T{t} H{h}/{g} D{d}"
    return Case(name, ours, peer, check, ceiling, flops / 1e9, "GFLOP")


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for shape in SHAPES:
            yield forward(dtype, *shape)
        for shape in SHAPES[:3]:
            yield backward(dtype, *shape)
        for shape in DECODE:
            yield forward(dtype, *shape, queries=1)


if __name__ == "__main__":
    run(cases)
