"""matmul: squares, GPT-2's shapes and head, one row, batches of small ones; f32, bf16.

One row takes weights from memory, as decoding does: a call goes through as many copies of them as
make 256 MB. "packed" are weights packed once beforehand; the peer takes them as they are.
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
    stream_ceiling,
    tensor,
    torch,
    wide,
)

from gristmill.backend import _C
from gristmill.ops.matmul import reference_forward

# M, N, K
QUICK = [(256, 256, 256), (1024, 1024, 1024)]
SQUARE = [(n, n, n) for n in (512, 1024, 2048)]
GPT2 = [(1024, 2304, 768), (1024, 768, 768), (1024, 3072, 768), (1024, 768, 3072)]
HEAD = (1024, 50257, 768)
VECTOR = [(2304, 768), (768, 768), (768, 3072), (50257, 768)]  # N, K
BATCHES = [(48, 32), (48, 64), (48, 128)]  # products (4 sequences, 12 heads), their M = N = K
ROTATED = 256 << 20  # bytes of weights that one row passes by
WAYS = {"NN": (False, False), "NT": (False, True), "TN": (True, False)}


def operands(dtype: str, way: str, m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """a (M, K) and b (K, N) that lie transposed in memory where `way` says T."""
    a, b = normal(m, k, seed=1), normal(k, n, seed=2)
    if WAYS[way][0]:
        a = np.ascontiguousarray(a.T).T
    if WAYS[way][1]:
        b = np.ascontiguousarray(b.T).T
    if dtype == "bfloat16":
        a, b = (bf16(x) if x.flags.c_contiguous else bf16(x.T).T for x in (a, b))
    return a, b


def some_rows(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Eight rows, first and last among them, beside the twin's."""
    rows = np.unique(np.linspace(0, len(a) - 1, 8).astype(int))
    return [(out[rows], reference_forward(wide(a[rows])[None], wide(b)[None])[0])]


def tolerance(dtype: str, k: int) -> float:
    """A chain of K roundings, of chance signs; bfloat16 results are rounded once more."""
    return k * U + (UB if dtype == "bfloat16" else 0)


def case(dtype: str, way: str, m: int, n: int, k: int) -> Case:
    """out = a b; NT and TN read one operand transposed, as the backward pass does."""
    a, b = operands(dtype, way, m, n, k)
    out, other = np.zeros((m, n), a.dtype), np.zeros((m, n), a.dtype)
    into, x, y = (array(z[None]) for z in (out, a, b))
    if torch is None:
        theirs = None if dtype == "bfloat16" else lambda: np.matmul(a, b, out=other)
    else:
        p, q, r = tensor(other), tensor(a), tensor(b)
        theirs = lambda: torch.matmul(q, r, out=p)  # noqa: E731

    def ours() -> None:
        _C.matmul(into, x, y, dtype)

    check = agreement(
        ours, lambda: some_rows(out, a, b), tolerance(dtype, k), theirs, lambda: [(out, other)]
    )
    flops = 2.0 * m * n * k
    ceiling = compute_ceiling(flops, dtype)
    return Case(f"{dtype} {way} {m}x{n}x{k}", ours, theirs, check, ceiling, flops / 1e9, "GFLOP")


def vector(dtype: str, n: int, k: int, packed: bool) -> Case:
    """One row times weights (N, K) that lie along K, or that were packed before."""
    a, b = operands(dtype, "NT", 1, n, k)
    copies = -(-ROTATED // b.nbytes)
    weights = [b, *(b.copy(order="K") for _ in range(copies - 1))]
    out, other = np.zeros((1, n), a.dtype), np.zeros((1, n), a.dtype)
    into, x, ready = array(out[None]), array(a[None]), [array(w[None]) for w in weights]
    packs = [_C.matmul_pack(array(w), dtype) if packed else None for w in weights]
    theirs = None
    if torch is not None:
        p, q, tensors = tensor(other), tensor(a), [tensor(w) for w in weights]

        def theirs() -> None:
            for w in tensors:
                torch.matmul(q, w, out=p)

    def ours() -> None:
        for w, pack in zip(ready, packs, strict=True):
            _C.matmul(into, x, w, dtype, pack)

    check = agreement(
        ours, lambda: some_rows(out, a, b), tolerance(dtype, k), theirs, lambda: [(out, other)]
    )
    size = copies * b.nbytes / 4
    name = f"{dtype} {'packed' if packed else 'NT'} 1x{n}x{k}"
    return Case(name, ours, theirs, check, stream_ceiling(1, 0, size), 4e-9 * size, "GB")


def batch(dtype: str, count: int, n: int) -> Case:
    """A batch of small square products."""
    a, b = normal(count, n, n, seed=1), normal(count, n, n, seed=2)
    if dtype == "bfloat16":
        a, b = bf16(a), bf16(b)
    out, other = np.zeros_like(a), np.zeros_like(a)
    into, x, y = (array(z) for z in (out, a, b))
    if torch is None:
        theirs = None if dtype == "bfloat16" else lambda: np.matmul(a, b, out=other)
    else:
        p, q, r = tensor(other), tensor(a), tensor(b)
        theirs = lambda: torch.bmm(q, r, out=p)  # noqa: E731

    def ours() -> None:
        _C.matmul(into, x, y, dtype)

    check = agreement(
        ours,
        lambda: [(out, reference_forward(wide(a), wide(b)))],
        tolerance(dtype, n),
        theirs,
        lambda: [(out, other)],
    )
    flops = 2.0 * count * n**3
    name = f"{dtype} {count} of {n}x{n}x{n}"
    return Case(name, ours, theirs, check, compute_ceiling(flops, dtype), flops / 1e9, "GFLOP")


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for shape in QUICK:
            yield case(dtype, "NN", *shape)
        for shape in [*SQUARE, *GPT2, HEAD]:
            for way in WAYS:
                if shape != QUICK[-1] or way != "NN":
                    yield case(dtype, way, *shape)
        yield case(dtype, "NN", 4096, 4096, 4096)
        for shape in VECTOR:
            for packed in (False, True):
                yield vector(dtype, *shape, packed)
        for small in BATCHES:
            yield batch(dtype, *small)


if __name__ == "__main__":
    run(cases)
