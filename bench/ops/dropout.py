"""dropout: float32 and bfloat16; the mask is drawn while the values pass, forwards and backwards
alike: one kernel is both.

Not equal: PyTorch's dropout has no out=, so the peer allocates result and mask in every call.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import UB, Case, array, bf16, normal, run, streaming, tensor, torch, wide

from gristmill.backend import _C
from gristmill.ops.dropout import reference_forward

N, P = 1 << 24, 0.1


def case(dtype: str) -> Case:
    """Masks differ from the peer's, so ours is checked against the twin."""
    x = bf16(normal(N)) if dtype == "bfloat16" else normal(N)
    out, values = np.zeros_like(x), wide(x).astype(np.float32)
    into, a = array(out), array(x)
    t = None if torch is None else tensor(x)
    generator = np.random.default_rng(0)

    def ours() -> None:
        _C.dropout(into, a, 1, 2, P)

    def peer() -> object:
        if t is not None:
            return torch.nn.functional.dropout(t, P, training=True)
        return values * (generator.random(N, dtype=np.float32) >= P) / (1 - P)

    def check() -> None:
        ours()
        n = 1 << 16
        want, rtol = reference_forward(wide(x[:n]), 1, 2, P), UB if dtype == "bfloat16" else 1e-6
        np.testing.assert_allclose(wide(out[:n]), want, rtol=1.01 * rtol)
        assert abs((out != 0).mean() - (1 - P)) < 1e-3

    return streaming(f"{dtype} p {P}, {N}", ours, peer, check, (1, 1), x.nbytes / 4)


def cases() -> Iterator[Case]:
    yield case("float32")
    yield case("bfloat16")


if __name__ == "__main__":
    run(cases)
