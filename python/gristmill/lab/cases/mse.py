"""Cases of mse: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, TINY, Case, Floats, gamma, given, wanted
from gristmill.ops.mse import reference_backward, reference_forward

CHUNK = 16384  # kReduceChunk
LONG = (100, 1000, CHUNK, CHUNK + 1, 3 * CHUNK - 1)


def forward_bound(x: Floats, target: Floats) -> Floats:
    """Lanes, four chains and their tree, the sum over chunks; a difference twice, the quotient."""
    chain = -(-min(x.size, CHUNK) // 64) + 9
    bound: Floats = gamma(chain - (-x.size // CHUNK) + 3) * reference_forward(x, target)
    return bound


def pair(name: str, n: int, dtype: str, add: bool, wants: str) -> Iterator[Case]:
    """`wants`: which gradients, "dx", "dtarget" or both."""
    rng = np.random.default_rng(n)
    x, target, start = rng.normal(0, 2, (3, n))
    arrays = {"x": given(x, dtype), "target": given(target, dtype)}
    a, b = (operand.values for operand in arrays.values())
    loss = wanted((1,), dtype, start=[1.5] if add else None)
    value = reference_forward(a, b), forward_bound(a, b)
    yield Case("mse_forward", name, {"loss": loss, **arrays, "n": n}, {"loss": value})
    dloss = given([-0.7], dtype)
    results = zip(("dx", "dtarget"), reference_backward(dloss.values, a, b), strict=True)
    # 2 / n, times dloss, a difference, a product
    expected = {k: (v, gamma(4) * np.abs(v) + TINY) for k, v in results if k in wants}
    outs = {k: wanted((n,), dtype, start=start if add else None) for k in expected}
    given_arrays = {"dx": None, "dtarget": None, **outs, "dloss": dloss, **arrays}
    yield Case("mse_backward", f"{name}-{wants}", {**given_arrays, "n": n}, expected)


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for n in SIZES + LONG:
            wants = "dx" if n % 3 == 0 else "dtarget" if n % 3 == 1 else "dx, dtarget"
            yield from pair(f"{n}-{dtype}", n, dtype, n in (17, 100), wants)
        yield from pair(f"33-{dtype}-added", 33, dtype, True, "dx, dtarget")
