"""embedding: forward and backward of a vocabulary of 16384.

Not equal: PyTorch's embedding_dense_backward has no out=, so the peer allocates the table's
gradient in every call, where ours writes into a ready one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, U, agreement, array, normal, run, streaming, tensor, torch, wide

from gristmill.backend import _C
from gristmill.ops.embedding import reference_backward, reference_forward

ROWS, COLS, V = 4096, 768, 16384


def forward() -> Case:
    weight = normal(V, COLS)
    ids = np.random.default_rng(1).integers(0, V, ROWS, dtype=np.int32)
    out, other = (np.zeros((ROWS, COLS), np.float32) for _ in range(2))
    arrays = [array(x) for x in (out, weight, ids)]

    def ours() -> None:
        _C.embedding_forward(*arrays)

    if torch is not None:
        w, i, o = tensor(weight), tensor(ids), tensor(other)

        def peer() -> None:
            torch.index_select(w, 0, i, out=o)

    else:

        def peer() -> None:
            np.take(weight, ids, axis=0, out=other)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(out, reference_forward(weight, ids))]

    check = agreement(ours, twin, 0.0, peer, lambda: [(out, other)])
    return streaming(f"forward {ROWS}x{COLS}", ours, peer, check, (1, 1), out.size)


def backward() -> Case:
    """The table's whole gradient is written: zeros where no id points."""
    dout = normal(ROWS, COLS)
    ids = np.random.default_rng(1).integers(0, V, ROWS, dtype=np.int32)
    dweight = np.zeros((V, COLS), np.float32)
    arrays = [array(x) for x in (dweight, dout, ids)]

    def ours() -> None:
        _C.embedding_backward(*arrays)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(dweight, reference_backward(wide(dout), ids, V))]

    other: list[np.ndarray] = []
    if torch is not None:
        d, i = tensor(dout), tensor(ids).long()

        def peer() -> None:
            other[:] = [torch.ops.aten.embedding_dense_backward(d, i, V, -1, False)]

    else:

        def peer() -> None:
            other[:] = [reference_backward(dout, ids, V)]

    # an id comes up at most 16 times here
    check = agreement(ours, twin, 16 * U, peer, lambda: [(dweight, np.asarray(other[0]))])
    elements = dweight.size + 2 * dout.size
    return streaming(f"backward {ROWS}x{COLS}, V {V}", ours, peer, check, (0, 1), elements)


def cases() -> Iterator[Case]:
    yield forward()
    yield backward()


if __name__ == "__main__":
    run(cases)
