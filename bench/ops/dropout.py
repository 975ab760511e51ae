"""dropout: the mask is drawn while the values pass, forwards and backwards alike.

Not equal: PyTorch's dropout has no out=, so the peer allocates result and mask in every call.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import Case, array, normal, run, stream_ceiling, tensor, torch

from gristmill.backend import _C
from gristmill.ops.dropout import reference_forward

N, P = 1 << 24, 0.1


def case() -> Case:
    """Masks differ from the peer's, so ours is checked against the twin."""
    x = normal(N)
    out = np.zeros_like(x)
    into, a = array(out), array(x)
    t = None if torch is None else tensor(x)
    generator = np.random.default_rng(0)

    def ours() -> None:
        _C.dropout(into, a, 1, 2, P)

    def peer() -> object:
        if t is not None:
            return torch.nn.functional.dropout(t, P, training=True)
        return x * (generator.random(N, dtype=np.float32) >= P) / (1 - P)

    def check() -> None:
        ours()
        n = 1 << 16
        np.testing.assert_allclose(out[:n], reference_forward(x[:n], 1, 2, P), rtol=1e-6)
        assert abs((out != 0).mean() - (1 - P)) < 1e-3

    return Case(f"p {P}, {N}", ours, peer, check, stream_ceiling(1, 1, N), 8e-9 * N, "GB")


def cases() -> Iterator[Case]:
    yield case()


if __name__ == "__main__":
    run(cases)
