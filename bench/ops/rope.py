"""rope: forward and backward (turned back), float32 and bfloat16; the peer composes it in place,
with cos and sin in the type of x."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import (
    UB,
    Case,
    U,
    agreement,
    array,
    bf16,
    normal,
    run,
    streaming,
    tensor,
    torch,
    wide,
)

from gristmill.backend import _C
from gristmill.ops.rope import reference_forward

SHAPE = (4, 1024, 12, 64)  # B, T, H, D


def case(dtype: str, backward: bool) -> Case:
    x = normal(*SHAPE, seed=1)
    if dtype == "bfloat16":
        x = bf16(x)
    out, other = np.zeros_like(x), np.zeros_like(x)
    half = SHAPE[3] // 2
    angle = np.arange(SHAPE[1])[:, None] * 10000.0 ** (-np.arange(half) / half)
    cos, sin = (f(angle).astype(np.float32) for f in (np.cos, np.sin))
    arrays = [array(z) for z in (out, x, cos, sin)]

    def ours() -> None:
        _C.rope(*arrays, None, backward, False)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(out, reference_forward(wide(x), wide(cos), wide(sin), None, backward))]

    peer = None
    if torch is not None:
        t, o = tensor(x), tensor(other)
        c, s = (tensor(z)[None, :, None].to(t.dtype) for z in (cos, sin))
        sign = 1 if backward else -1
        (lo, hi), (to_lo, to_hi) = t.split(half, -1), o.split(half, -1)

        def peer() -> None:
            torch.mul(lo, c, out=to_lo).addcmul_(hi, s, value=sign)
            torch.mul(hi, c, out=to_hi).addcmul_(lo, s, value=-sign)

    elif dtype == "float32":

        def peer() -> None:
            other[...] = reference_forward(x, cos, sin, None, backward)

    # two products and a sum; the peer also rounds cos and sin and one product to bfloat16
    tolerance = UB if dtype == "bfloat16" else 3 * U
    check = agreement(ours, twin, tolerance, peer, lambda: [(out, other)], 2 * 3 * tolerance)
    way = "backward" if backward else "forward"
    name = f"{dtype} {way} B{SHAPE[0]} T{SHAPE[1]} H{SHAPE[2]} D{SHAPE[3]}"
    return streaming(name, ours, peer, check, (1, 1), x.nbytes / 4)


def cases() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for backward in (False, True):
            yield case(dtype, backward)


if __name__ == "__main__":
    run(cases)
