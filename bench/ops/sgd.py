"""sgd: one step over a flat buffer, with and without momentum; the peer is PyTorch's fused one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, close, normal, run, streaming, tensor, torch, wide

from gristmill.backend import _C
from gristmill.ops.sgd import reference_forward

RATE, N = 1e-3, 1 << 24
STEPS = 3  # verified, each with another gradient


def case(momentum: float, nesterov: bool = False) -> Case:
    """Both take three steps from the same state; timing goes on from there with the last's."""
    grad, param = normal(N, seed=1), normal(N, seed=2)
    before, velocity = param.copy(), np.zeros(N, np.float32)
    step = np.zeros(3, np.float32)
    arrays = array(param), array(velocity) if momentum else None, array(grad), array(step)
    if torch is not None:
        other = torch.nn.Parameter(tensor(before.copy()))
        other.grad = tensor(grad)
        peer = torch.optim.SGD(
            [other], lr=RATE, momentum=momentum, nesterov=nesterov, fused=True
        ).step
    else:
        state = [before.copy(), np.zeros_like(velocity)]

        def peer() -> None:
            state[:] = reference_forward(*state, grad, step, momentum, nesterov=nesterov)

    def ours() -> None:
        _C.sgd(*arrays, momentum, 0.0, 0.0, nesterov)

    def check() -> None:
        part = slice(None, None, N >> 18 | 1)  # odd: meets every lane
        twin = wide(param[part]), wide(velocity[part])
        for t in range(1, STEPS + 1):
            grad[...] = normal(N, seed=10 + t)
            step[...] = RATE, 1, t == 1
            ours()
            peer()
            twin = reference_forward(
                *twin, wide(grad[part]), wide(step), momentum, nesterov=nesterov
            )
        # weights near 4, rounded at each of 3 steps by 2.4e-7, have moved by some 5e-3: 1.4e-4
        close((param - before)[part], twin[0] - before[part], 1e-3, "ours and the twin")
        moved = state[0] if torch is None else other.detach().numpy()
        close(param - before, moved - before, 1e-3, "ours and the peer")

    streams = (3, 2) if momentum else (2, 1)
    name = f"momentum {momentum}{', Nesterov' * nesterov}, {N} parameters"
    return streaming(name, ours, peer, check, streams, N, in_place=True)


def cases() -> Iterator[Case]:
    yield case(0.0)
    yield case(0.9)
    yield case(0.9, nesterov=True)


if __name__ == "__main__":
    run(cases)
