"""init: uniform, normal and truncated normal numbers by index; the ceiling is to fill memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, aligned, array, close, run, stream_ceiling, tensor, torch

from gristmill.backend import _C
from gristmill.ops.init import reference_forward

N = 124_439_808  # parameters of GPT-2 124M


def case(distribution: str) -> Case:
    """Streams differ from the peer's, so ours is checked against the twin."""
    out, other = aligned(N), aligned(N)
    into = array(out)
    o = None if torch is None else tensor(other)
    generator = np.random.default_rng(0)

    def ours() -> None:
        _C.random(into, 1, 2, distribution, 0.0, 1.0)

    def peer() -> None:
        if o is None:
            draw = generator.random if distribution == "uniform" else generator.standard_normal
            draw(dtype=np.float32, out=other)
        elif distribution == "uniform":
            o.uniform_()
        elif distribution == "normal":
            o.normal_()
        else:
            torch.nn.init.trunc_normal_(o)

    def check() -> None:
        ours()
        n = 1 << 16
        want = reference_forward(n, 1, 2, distribution, 0.0, 1.0)
        close(out[:n], want, 1e-6, "ours and the twin")

    return Case(f"{distribution} {N}", ours, peer, check, stream_ceiling(0, 1, N), 4e-9 * N, "GB")


def cases() -> Iterator[Case]:
    for distribution in ("uniform", "normal", "truncated_normal"):
        yield case(distribution)


if __name__ == "__main__":
    run(cases)
