"""sgd: one step over a flat buffer, with and without momentum; the peer is PyTorch's fused one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, normal, run, streaming, tensor, torch

from gristmill.backend import _C
from gristmill.ops.sgd import reference_forward

RATE, N = 1e-3, 1 << 24


def case(momentum: float) -> Case:
    """Both take the first step from the same state; timing goes on from there."""
    grad, param = normal(N, seed=1), normal(N, seed=2)
    before, velocity = param.copy(), np.zeros(N, np.float32)
    step = np.array([RATE, 1, 0], np.float32)
    arrays = array(param), array(velocity) if momentum else None, array(grad), array(step)
    if torch is not None:
        other = torch.nn.Parameter(tensor(before.copy()))
        other.grad = tensor(grad.copy())
        peer = torch.optim.SGD([other], lr=RATE, momentum=momentum, fused=True).step
    else:
        state = [before.copy(), np.zeros_like(velocity)]

        def peer() -> None:
            state[:] = reference_forward(*state, grad, step, momentum)

    def results() -> list[tuple[np.ndarray, np.ndarray]]:
        moved = state[0] if torch is None else other.detach().numpy()
        return [(param - before, moved - before)]

    return streaming(
        f"momentum {momentum}, {N} parameters",
        lambda: _C.sgd(*arrays, momentum, 0.0, 0.0, False),
        peer,
        results,
        (3, 2) if momentum else (2, 1),
        N,
        1e-3,
        in_place=True,
    )


def cases() -> Iterator[Case]:
    yield case(0.0)
    yield case(0.9)


if __name__ == "__main__":
    run(cases)
