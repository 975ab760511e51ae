"""Cases of matmul: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import Case, Floats, Operand, gamma, given, round_bf16, wanted, widen_bf16
from gristmill.ops.matmul import reference_forward

# batch, M, N, K around the tile (12 x 32, 6 x 16), the vector and the k block of 384
SHAPES = [
    *((1, m, n, 5) for m in (1, 5, 6, 7, 11, 12, 13, 25) for n in (1, 15, 16, 17, 31, 32, 33, 65)),
    *((1, 3, 17, k) for k in (1, 2, 3, 7, 16, 383, 384, 385, 769)),
    *((2, 97, 70, 20), (3, 13, 33, 7), (1, 130, 520, 30), (1, 1, 700, 400), (1, 400, 1, 61)),
]

LAYOUTS = ("plain", "gaps", "transposed")

KINDS = [  # dtype of out, a, b, how it is computed
    ("float32", "float32", "float32", "float32"),
    ("float32", "float32", "float32", "bfloat16"),
    ("bfloat16", "bfloat16", "bfloat16", "bfloat16"),
    ("bfloat16", "bfloat16", "bfloat16", "float32"),
    ("float32", "bfloat16", "float32", "float32"),
    ("float32", "float32", "bfloat16", "bfloat16"),
]


def operand(rng: np.random.Generator, shape: tuple[int, ...], *where: str) -> Operand:
    return given(rng.normal(size=shape), *where)


def used(x: Operand, compute: str) -> Floats:
    """The values that are multiplied: computed in bfloat16, float32 operands are rounded to it."""
    values = x.values
    if compute == "bfloat16":
        values = widen_bf16(round_bf16(values)).astype(np.float64)
    return values


def case(name: str, out: Operand, a: Operand, b: Operand, compute: str) -> Case:
    """A chain of K fma from C is off by gamma_K(|C| + |a| |b|). Higham, section 3.5. Pairs of
    bfloat16 are exact products added one after the other, each sum rounded: 2 K."""
    x, y = used(a, compute), used(b, compute)
    batch, m, k = a.shape
    size = reference_forward(np.abs(x), np.abs(y))
    if out.accumulate:
        size = size + np.abs(out.values)
    steps = 2 * k + 2 if compute == "bfloat16" else k
    return Case(
        "matmul",
        name,
        {
            **{"out": out, "a": a, "b": b, "batch": batch, "M": m, "N": b.shape[2], "K": k},
            "compute": compute,
        },
        {"out": (reference_forward(x, y), gamma(steps) * size)},
    )


def build(
    rng: np.random.Generator,
    sizes: tuple[int, int, int, int],
    kind: tuple[str, ...],
    layouts: tuple[str, str],
    add: bool,
) -> Case:
    batch, m, n, k = sizes
    a = operand(rng, (batch, m, k), kind[1], layouts[0])
    b = operand(rng, (batch, k, n), kind[2], layouts[1])
    start = rng.normal(size=(batch, m, n)) if add else None
    out = wanted((batch, m, n), kind[0], "gaps", start)
    words = ("x".join(map(str, sizes)), *kind, *layouts, *(["added"] if add else []))
    return case("-".join(words), out, a, b, kind[3])


def cases() -> Iterator[Case]:
    """Every shape in float32 plain; layouts and kinds in turn, so that each meets every tail."""
    rng = np.random.default_rng(27)
    turns = [(x, y) for x in LAYOUTS for y in LAYOUTS]
    for i, sizes in enumerate(SHAPES):
        yield build(rng, sizes, KINDS[0], ("plain", "plain"), add=False)
        yield build(rng, sizes, KINDS[0], turns[i % 9], add=i % 2 == 0)
        for j, kind in enumerate(KINDS[1:]):
            if i >= 64 or (i + j) % 5 == 0:
                yield build(rng, sizes, kind, turns[(i + j) % 9], add=(i + j) % 3 == 0)
