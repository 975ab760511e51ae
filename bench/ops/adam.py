"""adam: one step over a flat buffer, 28 bytes a parameter; the peer is PyTorch's fused one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, close, normal, run, streaming, tensor, torch, wide

from gristmill.backend import _C
from gristmill.ops.adam import reference_forward

RATE, BETAS, EPS, DECAY = 1e-3, (0.9, 0.95), 1e-8, 0.1
N = 1 << 24


def case() -> Case:
    """One verified step from the same state; timing goes on from there."""
    grad, param = normal(N, seed=1), normal(N, seed=2)
    m, v, before = np.zeros(N, np.float32), np.zeros(N, np.float32), param.copy()
    step = np.array([RATE, 1, 1 - BETAS[0], 1 - BETAS[1]], np.float32)
    arrays = [array(x) for x in (param, m, v, grad, step)]
    state = [before.copy(), m.copy(), v.copy()]
    other = None if torch is None else torch.nn.Parameter(tensor(state[0]))
    if torch is not None:
        other.grad = tensor(grad)
        options = {"lr": RATE, "betas": BETAS, "eps": EPS, "weight_decay": DECAY, "fused": True}
        fused = torch.optim.Adam([other], **options)

    def peer() -> None:
        if torch is not None:
            fused.step()
        else:
            state[:] = reference_forward(*state, grad, step, *BETAS, EPS, DECAY)

    def ours() -> None:
        _C.adam(*arrays, *BETAS, EPS, DECAY)

    def check() -> None:
        part = slice(None, None, N >> 18 | 1)  # odd: meets every lane
        start = [wide(x[part]) for x in (param, m, v)]
        twin = reference_forward(*start, wide(grad[part]), wide(step), *BETAS, EPS, DECAY)
        ours()
        peer()
        # weights near 4, rounded by 2.4e-7, have moved by 1e-3
        close((param - before)[part], twin[0] - before[part], 1e-3, "ours and the twin")
        theirs = state[0] if other is None else other.detach().numpy()
        close(param - before, theirs - before, 1e-3, "ours and the peer")

    return streaming(f"{N} parameters", ours, peer, check, (4, 3), N, in_place=True)


def cases() -> Iterator[Case]:
    yield case()


if __name__ == "__main__":
    run(cases)
