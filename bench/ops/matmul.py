"""matmul: square, transposed, the shapes of a transformer, one row, a packed operand; f32, bf16."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
SHAPES = [
    (256, 256, 256),
    (1024, 1024, 1024),
    (1024, 2304, 768),
    (4096, 384, 1024),
    (1024, 16384, 768),
]
VECTOR = [(1, 2304, 768), (1, 16384, 768)]
PACKED = [(1, 2304, 768), (64, 2304, 768)]
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


def limit(dtype: str, m: int, n: int, k: int) -> tuple[Callable[[], float], float, str]:
    """Ceiling, amount and unit: of one row, how fast the weights can be read."""
    if m == 1:
        size = n * k / (2 if dtype == "bfloat16" else 1)
        return stream_ceiling(1, 0, size), 4e-9 * size, "GB"
    return compute_ceiling(2.0 * m * n * k, dtype), 2e-9 * m * n * k, "GFLOP"


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
    return Case(f"{dtype} {way} {m}x{n}x{k}", ours, theirs, check, *limit(dtype, m, n, k))


def packed(dtype: str, m: int, n: int, k: int) -> Case:
    """A weight packed once, beside our own product that packs it at each call: the same bytes."""
    a, b = operands(dtype, "NT", m, n, k)
    out, other = np.zeros((m, n), a.dtype), np.zeros((m, n), a.dtype)
    into, plain, x, y = (array(z[None]) for z in (out, other, a, b))
    pack = _C.matmul_pack(array(b), dtype)

    def ours() -> None:
        _C.matmul(into, x, y, dtype, pack)

    def unpacked() -> None:
        _C.matmul(plain, x, y, dtype)

    check = agreement(
        ours, lambda: some_rows(out, a, b), tolerance(dtype, k), unpacked, lambda: [(out, other)], 0
    )
    name = f"{dtype} packed {m}x{n}x{k}"
    return Case(name, ours, unpacked, check, *limit(dtype, m, n, k), "our own, not packed")


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for m, n, k in SHAPES:
            for way in WAYS if m * n * k == 1024**3 else ["NN"] if m == 256 else ["NT"]:
                yield case(dtype, way, m, n, k)
        for m, n, k in VECTOR:
            yield case(dtype, "NT", m, n, k)
        for m, n, k in PACKED:
            yield packed(dtype, m, n, k)


if __name__ == "__main__":
    run(cases)
