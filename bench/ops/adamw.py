"""adamw: one step over the parameters of GPT-2 124M, 28 bytes each; beside PyTorch's fused one.

With clipping: ours squares the gradients in one pass and scales them in the step; the peer calls
clip_grad_norm_, step and zero_grad. With bfloat16 averages, 20 bytes, the peer's stay float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from bench.measure import Case, aligned, array, close, run, streaming, tensor, torch, wide

from gristmill.backend import _C
from gristmill.ops.adamw import reference_forward

N = 124_439_808
RATE, BETAS, EPS, DECAY = 1e-3, (0.9, 0.95), 1e-8, 0.1
STEPS = 3  # verified, each with another gradient


def case(n: int, state: str = "float32", max_norm: float = 0.0) -> Case:
    """Both take three steps from the same state; timing goes on from there with the last's."""
    short = state == "bfloat16"
    grad, param = aligned(n), aligned(n)
    _C.random(array(param), 0, 0, "normal", 0.0, 1.0)
    m, v = (aligned(n // 2 + n % 2).view(np.uint16)[:n] if short else aligned(n) for _ in range(2))
    before, step, norm = param.copy(), np.zeros(4, np.float32), np.zeros(1, np.float32)
    step[1] = 1
    arrays = [array(x) for x in (param, m, v, grad, step)]
    row = arrays[3].view((1, n), (n, 1), 0)
    whole = array(norm)
    other = None if torch is None else torch.nn.Parameter(tensor(before.copy()))
    twice = [before.copy(), np.zeros(n, np.float32), np.zeros(n, np.float32)] if not torch else []
    if torch is not None:
        fused = torch.optim.AdamW(
            [other], lr=RATE, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True
        )

    def peer() -> None:
        if torch is None:
            twice[:] = reference_forward(*twice, grad, step, *BETAS, EPS, DECAY)
            return
        other.grad = tensor(grad)
        if max_norm:
            torch.nn.utils.clip_grad_norm_([other], max_norm)
        fused.step()
        fused.zero_grad()

    def ours() -> None:
        if max_norm:
            _C.reduce(whole, row, "sum_of_squares")
            step[1] = max_norm / max(max_norm, math.sqrt(norm[0]))
        _C.adamw(*arrays, *BETAS, EPS, DECAY)

    def check() -> None:
        part = slice(None, None, n >> 18 | 1)  # odd: meets every lane
        twin = [wide(x[part]) for x in (param, m, v)]
        for t in range(1, STEPS + 1):
            _C.random(arrays[3], 1, t, "normal", 0.0, 1.0)
            step[[0, 2, 3]] = RATE, 1 - BETAS[0] ** t, 1 - BETAS[1] ** t
            ours()
            gradient = wide(grad[part])
            peer()  # clips in place
            twin = reference_forward(*twin, gradient, wide(step), *BETAS, EPS, DECAY)
        # a bfloat16 average is off by up to 2^-7 of itself each step
        for mine, want in zip((m, v), twin[1:], strict=True):
            close(mine[part], want, 0.02 if short else 1e-6, "averages of ours and the twin")
        # weights near 5, rounded at each of 3 steps by 2.4e-7, have moved by 3e-3: 2.4e-4 of it
        moved = (param - before)[part]
        close(moved, twin[0] - before[part], 0.02 if short else 1e-3, "ours and the twin")
        theirs = other.detach().numpy() if torch is not None else twice[0]
        close(moved, (theirs - before)[part], 0.02 if short else 1e-3, "ours and the peer")

    name = f"{n} parameters" + ", bfloat16 averages" * short + ", clipped" * bool(max_norm)
    bytes_each = (20 if short else 28) + 4 * bool(max_norm)
    return streaming(name, ours, peer, check, (4, 3), n * bytes_each / 28, in_place=True)


def cases() -> Iterator[Case]:
    yield case(1 << 20)
    yield case(N)
    yield case(N, max_norm=1.0)
    yield case(N, "bfloat16")


if __name__ == "__main__":
    run(cases)
