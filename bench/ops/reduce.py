"""reduce: one long sum, the sum of squares a norm needs, and rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, normal, run, streaming, tensor, torch

from gristmill.backend import _C
from gristmill.ops.reduce import reference_forward

SHAPES = [
    ("sum", 1, 1 << 24),
    ("sum_of_squares", 1, 1 << 24),
    ("sum", 4096, 1024),
    ("max", 4096, 1024),
]


def case(op: str, rows: int, cols: int) -> Case:
    x = normal(rows, cols) + np.float32(1)
    out, other = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    into, a = array(out), array(x)
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
        # against the twin: PyTorch's norm of 2^24 float32 numbers is off by 6e-4 itself
        return [(out, reference_forward(x.astype(np.float64), op))]

    name = f"{op} {rows}x{cols}"
    return streaming(name, lambda: _C.reduce(into, a, op), peer, results, (1, 0), x.size, 1e-4)


def cases() -> Iterator[Case]:
    for shape in SHAPES:
        yield case(*shape)


if __name__ == "__main__":
    run(cases)
