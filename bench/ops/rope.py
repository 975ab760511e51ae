"""rope: float32 and bfloat16; the peer composes it from slices, as Hugging Face's Llama does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from bench.measure import Case, array, bf16, normal, run, streaming, tensor, torch

from gristmill.backend import _C

SHAPE = (4, 1024, 12, 64)  # B, T, H, D


def case(dtype: str) -> Case:
    x = normal(*SHAPE, seed=1)
    if dtype == "bfloat16":
        x = bf16(x)
    out = np.zeros_like(x)
    half = SHAPE[3] // 2
    angle = np.arange(SHAPE[1])[:, None] * 10000.0 ** (-np.arange(half) / half)
    cos, sin = (f(angle).astype(np.float32) for f in (np.cos, np.sin))
    arrays = [array(z) for z in (out, x, cos, sin)]
    other: list[Any] = []

    def turn(v: Any, c: Any, s: Any, join: Any) -> Any:
        lo, hi = v[..., :half], v[..., half:]
        return join([lo * c - hi * s, hi * c + lo * s], -1)

    if torch is not None:
        t = tensor(x)
        c, s = (tensor(z)[None, :, None].to(t.dtype) for z in (cos, sin))

        def peer() -> None:
            other[:] = [turn(t, c, s, torch.cat)]

    elif dtype == "float32":

        def peer() -> None:
            other[:] = [turn(x, cos[None, :, None], sin[None, :, None], np.concatenate)]

    else:
        peer = None
    return streaming(
        f"{dtype} B{SHAPE[0]} T{SHAPE[1]} H{SHAPE[2]} D{SHAPE[3]}",
        lambda: _C.rope(*arrays, None, False, False),
        peer,
        lambda: [(out, np.asarray(other[0] if torch is None else other[0].float()))],
        (1, 1),
        x.nbytes / 4,
        2e-2 if dtype == "bfloat16" else 1e-6,
    )


def cases() -> Iterator[Case]:
    yield case("float32")
    yield case("bfloat16")


if __name__ == "__main__":
    run(cases)
