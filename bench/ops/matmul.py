"""matmul: square, transposed, the shapes of a transformer, one row; float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

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

# M, N, K
SHAPES = [
    (256, 256, 256),
    (1024, 1024, 1024),
    (1024, 2304, 768),
    (4096, 384, 1024),
    (1024, 16384, 768),
]
VECTOR = [(1, 2304, 768), (1, 16384, 768)]
WAYS = {"NN": (False, False), "NT": (False, True), "TN": (True, False)}


def case(dtype: str, way: str, m: int, n: int, k: int) -> Case:
    """out = a b; NT and TN read one operand transposed, as the backward pass does."""
    a, b = normal(m, k, seed=1), normal(k, n, seed=2)
    if WAYS[way][0]:
        a = np.ascontiguousarray(a.T).T
    if WAYS[way][1]:
        b = np.ascontiguousarray(b.T).T
    if dtype == "bfloat16":
        a, b = (bf16(x) if x.flags.c_contiguous else bf16(x.T).T for x in (a, b))
    out, other = np.zeros((m, n), a.dtype), np.zeros((m, n), a.dtype)
    into, x, y = (array(z[None]) for z in (out, a, b))
    if torch is None:
        theirs = None if dtype == "bfloat16" else lambda: np.matmul(a, b, out=other)
    else:
        p, q, r = tensor(other), tensor(a), tensor(b)
        theirs = lambda: torch.matmul(q, r, out=p)  # noqa: E731

    def ours() -> None:
        _C.matmul(into, x, y, dtype)

    def check() -> None:
        ours()
        if theirs is not None:
            theirs()
            close(out, other, 2e-2 if dtype == "bfloat16" else k * 2.0**-24)

    flops = 2.0 * m * n * k
    if m == 1:  # as fast as the weights can be read
        size = n * k / (2 if dtype == "bfloat16" else 1)
        ceiling, amount, unit = stream_ceiling(1, 0, size), 4e-9 * size, "GB"
    else:
        ceiling, amount, unit = compute_ceiling(flops, dtype), flops / 1e9, "GFLOP"
    name = f"{dtype} {way} {m}x{n}x{k}"
    return Case(name, ours, theirs, check, ceiling, amount, unit)


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for m, n, k in SHAPES:
            for way in WAYS if m * n * k == 1024**3 else ["NN"] if m == 256 else ["NT"]:
                yield case(dtype, way, m, n, k)
        for m, n, k in VECTOR:
            yield case(dtype, "NT", m, n, k)


if __name__ == "__main__":
    run(cases)
