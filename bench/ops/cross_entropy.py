"""cross_entropy: forward and backward on logits.

Not equal: PyTorch's cross_entropy has no out=, so the peer allocates its gradient in every call,
where ours writes into a ready one; it goes through autograd and keeps log-probabilities between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from bench.measure import Case, agreement, array, normal, run, streaming, tensor, torch, wide

from gristmill.backend import _C
from gristmill.ops.cross_entropy import reference_backward, reference_forward

ROWS = 1024


def case(v: int) -> Case:
    """Forward and backward of the mean: the logits are read twice, their gradient written once."""
    logits = normal(ROWS, v)
    targets = np.random.default_rng(3).integers(0, v, ROWS, dtype=np.int32)
    losses, lse = np.zeros(ROWS, np.float32), np.zeros(ROWS, np.float32)
    dlogits = np.zeros_like(logits)
    out, kept, x, t, d = (array(z) for z in (losses, lse, logits, targets, dlogits))
    each = array(np.array([1 / ROWS], np.float32)).view((ROWS,), (0,))

    def ours() -> None:
        _C.cross_entropy_forward(out, kept, x, t)
        _C.cross_entropy_backward(d, each, x, kept, t)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        part = slice(None, None, 17)  # rows in float64 of a vocabulary of 50257
        given, ids = wide(logits[part]), targets[part]
        gradient = reference_backward(np.full(len(ids), 1 / ROWS), given, ids)
        return [(losses[part], reference_forward(given, ids)[0]), (dlogits[part], gradient)]

    other: list[Any] = []
    if torch is not None:
        leaf, wanted = tensor(logits).requires_grad_(), tensor(targets).long()

        def peer() -> None:
            value = torch.nn.functional.cross_entropy(leaf, wanted)
            other[:] = [value.item(), torch.autograd.grad(value, leaf)[0].numpy()]

    else:

        def peer() -> None:
            gradient = reference_backward(np.full(ROWS, np.float32(1 / ROWS)), logits, targets)
            other[:] = [reference_forward(logits, targets)[0].mean(), gradient]

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(losses.mean(keepdims=True), np.array([other[0]])), (dlogits, other[1])]

    # sums of V in 16 lanes: lse is off by V/16 roundings at most, 1.9e-4 at 50257; losses near 10
    check = agreement(ours, twin, 2e-5, peer, results)
    name = f"forward + backward {ROWS}x{v}"
    return streaming(name, ours, peer, check, (2, 1), logits.size)


def cases() -> Iterator[Case]:
    yield case(4096)
    yield case(50257)


if __name__ == "__main__":
    run(cases)
