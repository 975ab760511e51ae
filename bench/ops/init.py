"""init: uniform, normal and truncated normal numbers by index; the ceiling is to fill memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, aligned, array, close, run, stream_ceiling, tensor, torch

from gristmill.backend import _C
from gristmill.ops.init import reference_forward

N = 124_439_808  # parameters of GPT-2 124M


def case(distribution: str, n: int = N) -> Case:
    """Streams differ from the peer's, so ours is checked against the twin."""
    out, other = aligned(n), aligned(n)
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
        some = 1 << 16
        want = reference_forward(some, 1, 2, distribution, 0.0, 1.0)
        close(out[:some], want, 1e-6, "ours and the twin")

    return Case(f"{distribution} {n}", ours, peer, check, stream_ceiling(0, 1, n), 4e-9 * n, "GB")


def cases() -> Iterator[Case]:
    yield case("uniform")
    yield case("normal")
    yield case("truncated_normal", 1 << 22)  # PyTorch's takes 10 s for 124 million


if __name__ == "__main__":
    run(cases)
