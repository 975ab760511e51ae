"""rmsprop: one step over a flat buffer; the peer is PyTorch's, which has no fused one (foreach)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, close, normal, run, streaming, tensor, torch, wide

from gristmill.backend import _C
from gristmill.ops.rmsprop import reference_forward

RATE, ALPHA, EPS, N = 1e-3, 0.99, 1e-8, 1 << 24


def case(momentum: float) -> Case:
    """One verified step from the same state; timing goes on from there."""
    grad, param = normal(N, seed=1), normal(N, seed=2)
    square, velocity, before = np.zeros(N, np.float32), np.zeros(N, np.float32), param.copy()
    step = np.array([RATE, 1], np.float32)
    used = velocity if momentum else None
    arrays = [None if x is None else array(x) for x in (param, square, None, used, grad, step)]
    mine = [before.copy(), square.copy(), None, None if used is None else used.copy()]
    other = None if torch is None else torch.nn.Parameter(tensor(mine[0]))
    if torch is not None:
        other.grad = tensor(grad)
        theirs = torch.optim.RMSprop(
            [other], lr=RATE, alpha=ALPHA, eps=EPS, momentum=momentum, foreach=True
        )

    def peer() -> None:
        if torch is not None:
            theirs.step()
        else:
            mine[:] = reference_forward(*mine, grad, step, ALPHA, EPS, 0.0, momentum)

    def ours() -> None:
        _C.rmsprop(*arrays, ALPHA, EPS, 0.0, momentum)

    def check() -> None:
        part = slice(None, None, N >> 18 | 1)  # odd: meets every lane
        start = [None if x is None else wide(x[part]) for x in (param, square, None, used)]
        twin = reference_forward(*start, wide(grad[part]), wide(step), ALPHA, EPS, 0.0, momentum)
        ours()
        peer()
        # weights near 4, rounded by 2.4e-7, have moved by 1e-2
        close((param - before)[part], twin[0] - before[part], 1e-3, "ours and the twin")
        after = mine[0] if other is None else other.detach().numpy()
        close(param - before, after - before, 1e-3, "ours and the peer")

    streams = (4, 3) if momentum else (3, 2)
    name = f"momentum {momentum}, {N} parameters"
    return streaming(name, ours, peer, check, streams, N, in_place=True)


def cases() -> Iterator[Case]:
    yield case(0.0)
    yield case(0.9)


if __name__ == "__main__":
    run(cases)
