"""adamw: one step over a flat buffer, 28 bytes a parameter; the peer is PyTorch's fused one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, close, normal, run, streaming, tensor, torch, wide

from gristmill.backend import _C
from gristmill.ops.adamw import reference_forward

RATE, BETAS, EPS, DECAY = 1e-3, (0.9, 0.95), 1e-8, 0.1
STEPS = 3  # verified, each with another gradient


def case(n: int) -> Case:
    """Both take three steps from the same state; timing goes on from there with the last's."""
    grad, param = normal(n, seed=1), normal(n, seed=2)
    m, v, before = np.zeros(n, np.float32), np.zeros(n, np.float32), param.copy()
    step = np.zeros(4, np.float32)
    arrays = [array(x) for x in (param, m, v, grad, step)]
    if torch is not None:
        other = torch.nn.Parameter(tensor(before.copy()))
        other.grad = tensor(grad)
        peer = torch.optim.AdamW(
            [other], lr=RATE, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True
        ).step
    else:
        state = [before.copy(), np.zeros_like(m), np.zeros_like(v)]

        def peer() -> None:
            state[:] = reference_forward(*state, grad, step, *BETAS, EPS, DECAY)

    def ours() -> None:
        _C.adamw(*arrays, *BETAS, EPS, DECAY)

    def check() -> None:
        part = slice(None, None, n >> 18 | 1)  # odd: meets every lane
        twin = [wide(x[part]) for x in (param, m, v)]
        for t in range(1, STEPS + 1):
            grad[...] = normal(n, seed=10 + t)
            step[...] = RATE, 1, 1 - BETAS[0] ** t, 1 - BETAS[1] ** t
            ours()
            peer()
            twin = reference_forward(*twin, wide(grad[part]), wide(step), *BETAS, EPS, DECAY)
        for mine, want in zip((m, v), twin[1:], strict=True):
            close(mine[part], want, 1e-6, "averages of ours and the twin")
        # weights near 4, rounded at each of 3 steps by 2.4e-7, have moved by 3e-3: 2.4e-4 of it
        close((param - before)[part], twin[0] - before[part], 1e-3, "ours and the twin")
        moved = state[0] if torch is None else other.detach().numpy()
        close(param - before, moved - before, 1e-3, "ours and the peer")

    return streaming(f"{n} parameters", ours, peer, check, (4, 3), n, in_place=True)


def cases() -> Iterator[Case]:
    yield case(1 << 20)
    yield case(1 << 24)


if __name__ == "__main__":
    run(cases)
