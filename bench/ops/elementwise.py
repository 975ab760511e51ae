"""elementwise: a sum, a function, a broadcast product and a conversion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bench.measure import (
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
from gristmill.ops.elementwise import reference_forward

SHAPE = (4096, 1024)
NUMPY = {"add": np.add, "mul": np.multiply, "exp": np.exp}


def case(op: str, broadcast: bool = False) -> Case:
    x, y = normal(*SHAPE, seed=1), normal(*SHAPE[broadcast:], seed=2)
    binary = op in ("add", "mul")
    out, other = np.zeros_like(x), np.zeros_like(x)
    into, a, b = array(out), array(x), array(y)
    if broadcast:
        b = b.view(SHAPE, (0, 1))

    def ours() -> None:
        _C.elementwise(into, a, b if binary else None, op, 0.0)

    operands = (x, y) if binary else (x,)
    if torch is not None:
        tensors, o = [tensor(z) for z in operands], tensor(other)

        def peer() -> None:
            getattr(torch, op)(*tensors, out=o)

    else:

        def peer() -> None:
            NUMPY[op](*operands, out=other)

    def twin() -> list[tuple[np.ndarray, np.ndarray]]:
        return [(out, reference_forward(op, *(wide(z) for z in operands)))]

    # one rounding for arithmetic, a polynomial's for exp
    check = agreement(ours, twin, U if binary else 8 * U, peer, lambda: [(out, other)])
    streams = (2 if binary and not broadcast else 1, 1)
    name = f"{op}{' of a row' if broadcast else ''} {SHAPE[0]}x{SHAPE[1]}"
    return streaming(name, ours, peer, check, streams, x.size)


def conversion() -> Case:
    x = normal(*SHAPE)
    out, other = np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint16)
    into, a = array(out), array(x)

    def ours() -> None:
        _C.elementwise(into, a, None, "copy", 0.0)

    peer = None
    if torch is not None:
        t, o = tensor(x), tensor(other)

        def peer() -> None:
            o.copy_(t)

    check = agreement(ours, lambda: [(out, bf16(x))], 0.0, peer, lambda: [(out, other)])
    name = f"float32 to bfloat16 {SHAPE[0]}x{SHAPE[1]}"
    elements = x.size * 0.75  # half of the bytes are written
    return streaming(name, ours, peer, check, (1, 1), elements)


def cases() -> Iterator[Case]:
    yield case("add")
    yield case("mul", broadcast=True)
    yield case("exp")
    yield conversion()


if __name__ == "__main__":
    run(cases)
