"""reduce: one long sum, the sum of squares a norm needs, rows, columns (the gradient of a bias)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, agreement, array, normal, run, streaming, tensor, torch, wide

from gristmill.backend import _C
from gristmill.ops.reduce import reference_forward

SHAPES = [
    ("sum", 1, 1 << 24),
    ("sum_of_squares", 1, 1 << 24),
    ("sum", 4096, 1024),
    ("max", 4096, 1024),
]


def case(op: str, rows: int, cols: int, across: bool = False) -> Case:
    """Of the rows of x, which with `across` are columns of what lies in memory."""
    x = normal(rows, cols) + np.float32(1)
    if across:
        x = np.ascontiguousarray(x.T).T
    out, other = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    into, a = array(out), array(x)

    def ours() -> None:
        _C.reduce(into, a, op)

    if torch is not None:
        t, o = tensor(x), tensor(other)

        def peer() -> None:
            if op == "sum":
                torch.sum(t, 1, out=o)
            elif op == "max":
                torch.amax(t, 1, out=o)
            else:
                torch.linalg.vector_norm(t, dim=1, out=o)

    else:

        def peer() -> None:
            if op == "sum_of_squares":
                other[...] = np.sqrt(np.einsum("ij,ij->i", x, x))
            else:
                getattr(np, op)(x, axis=1, out=other)

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(out, other**2 if op == "sum_of_squares" else other)]

    # 16 lanes of a chunk of 16384: 1024 roundings, 6e-5; PyTorch's own norm of 2^24 is off by 6e-4
    check = agreement(
        ours, lambda: [(out, reference_forward(wide(x), op))], 1e-4, peer, results, 2e-3
    )
    name = f"{op} of columns {cols}x{rows}" if across else f"{op} {rows}x{cols}"
    return streaming(name, ours, peer, check, (1, 0), x.size)


def cases() -> Iterator[Case]:
    for shape in SHAPES:
        yield case(*shape)
    yield case("sum", 3072, 1024, across=True)


if __name__ == "__main__":
    run(cases)
