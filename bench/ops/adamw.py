"""adamw: one step over a flat buffer, 28 bytes a parameter; the peer is PyTorch's fused one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, normal, run, streaming, tensor, torch

from gristmill.backend import _C
from gristmill.ops.adamw import reference_forward

RATE, BETAS, EPS, DECAY = 1e-3, (0.9, 0.95), 1e-8, 0.1


def case(n: int) -> Case:
    """Both take the first step from the same state; timing goes on from there."""
    grad = normal(n, seed=1)
    param, m, v = normal(n, seed=2), np.zeros(n, np.float32), np.zeros(n, np.float32)
    before = param.copy()
    step = np.array([RATE, 1, 1 - BETAS[0], 1 - BETAS[1]], np.float32)
    arrays = [array(x) for x in (param, m, v, grad, step)]
    if torch is not None:
        other = torch.nn.Parameter(tensor(before.copy()))
        other.grad = tensor(grad.copy())
        optimizer = torch.optim.AdamW(
            [other], lr=RATE, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True
        )
        peer = optimizer.step
    else:
        state = [before.copy(), np.zeros_like(m), np.zeros_like(v)]

        def peer() -> None:
            state[:] = reference_forward(*state, grad, step, *BETAS, EPS, DECAY)

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        moved = state[0] if torch is None else other.detach().numpy()
        return [(param - before, moved - before)]

    return streaming(
        f"{n} parameters",
        lambda: _C.adamw(*arrays, *BETAS, EPS, DECAY),
        peer,
        results,
        (4, 3),
        n,
        1e-3,
        in_place=True,
    )


def cases() -> Iterator[Case]:
    yield case(1 << 20)
    yield case(1 << 24)


if __name__ == "__main__":
    run(cases)
