"""embedding: forward and backward of a vocabulary of 16384."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, normal, run, streaming, tensor, torch

from gristmill.backend import _C
from gristmill.ops.embedding import reference_backward

ROWS, COLS, V = 4096, 768, 16384


def forward() -> Case:
    weight = normal(V, COLS)
    ids = np.random.default_rng(1).integers(0, V, ROWS, dtype=np.int32)
    out, other = (np.zeros((ROWS, COLS), np.float32) for _ in range(2))
    arrays = [array(x) for x in (out, weight, ids)]
    if torch is not None:
        w, i, o = tensor(weight), tensor(ids), tensor(other)

        def peer() -> None:
            torch.index_select(w, 0, i, out=o)

    else:

        def peer() -> None:
            np.take(weight, ids, axis=0, out=other)

    name = f"forward {ROWS}x{COLS}"
    return streaming(
        name, lambda: _C.embedding_forward(*arrays), peer, lambda: [(out, other)], (1, 1), out.size
    )


def backward() -> Case:
    """The table's whole gradient is written: zeros where no id points."""
    dout = normal(ROWS, COLS)
    ids = np.random.default_rng(1).integers(0, V, ROWS, dtype=np.int32)
    dweight, other = (np.zeros((V, COLS), np.float32) for _ in range(2))
    arrays = [array(x) for x in (dweight, dout, ids)]
    if torch is not None:
        d, i, o = tensor(dout), tensor(ids).long(), tensor(other)

        def peer() -> None:
            o[...] = torch.ops.aten.embedding_dense_backward(d, i, V, -1, False)

    else:

        def peer() -> None:
            other[...] = reference_backward(dout, ids, V)

    results = [(dweight, other)]
    return streaming(
        f"backward {ROWS}x{COLS}, V {V}",
        lambda: _C.embedding_backward(*arrays),
        peer,
        lambda: results,
        (0, 1),
        dweight.size + 2 * dout.size,
    )


def cases() -> Iterator[Case]:
    yield forward()
    yield backward()


if __name__ == "__main__":
    run(cases)
