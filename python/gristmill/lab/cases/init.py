"""Cases of init: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, Case, U, given, wanted
from gristmill.ops.init import reference_forward, reference_orthogonal

ENDS = {"uniform": (-0.3, 0.7), "normal": (0.1, 0.02), "truncated_normal": (-0.1, 1.5)}

BIG = 0x9E3779B97F4A7C15


def random_case(name: str, n: int, key: tuple[int, int], distribution: str, dtype: str) -> Case:
    a, b = (float(np.float32(x)) for x in ENDS[distribution])
    y = reference_forward(n, *key, distribution, a, b)
    size = 3 * (abs(a) + abs(b)) + np.zeros(n)  # b - a and the fma
    if distribution == "normal":
        # cos -+ sin within 3 U of the radius: two polynomials, their difference; then its square
        # root (2 ulp of the logarithm, halved; one of its own), the product, the fma
        z = reference_forward(n + n % 2, *key, distribution, 0, b).reshape(-1, 2)
        radius = np.hypot(*z.T).repeat(2)[:n]
        size = 8 * radius + 2 * np.abs(y) + 2 * abs(a)
    elif distribution == "truncated_normal":
        size = 8 * np.abs(y - a) + 2 * abs(a)  # two polynomials, no cancellation
    return Case(
        "random",
        name,
        {
            "out": wanted((n,), dtype, start=np.ones(n) if n == 17 else None),
            "key": given(np.array(key, np.uint64).view(np.int64), "int64"),
            "n": n,
            "distribution": distribution,
            "a": a,
            "b": b,
        },
        {"out": (y, U * size)},
    )


def orthogonal_case(rows: int, cols: int) -> Case:
    normal = np.random.default_rng(rows * 100 + cols).normal(size=(rows, cols))
    out = wanted((rows, cols), start=normal, accumulate=False)
    y = reference_orthogonal(out.values, 1.5)
    # Each vector takes a rounding from each one before it, twice; the result moves by the condition
    # number times as much. Golub and Van Loan, "Matrix computations", 5.2.9.
    bound = 4 * min(rows, cols) * U * np.linalg.cond(out.values) * 1.5
    return Case(
        "orthogonal",
        f"{rows}x{cols}",
        {"out": out, "rows": rows, "cols": cols, "gain": 1.5},
        {"out": (y, bound)},
    )


def cases() -> Iterator[Case]:
    for distribution in ENDS:
        for n in (*SIZES, 127, 128, 129, 5000, 16384 + 77):
            yield random_case(f"{distribution}-{n}", n, (3, 5), distribution, "float32")
        yield random_case(f"{distribution}-bf16", 61, (3, 5), distribution, "bfloat16")
        yield random_case(f"{distribution}-big-key", 33, (BIG, BIG ^ 1), distribution, "float32")
        # words of all ones: the largest number must not become 1, whose normal is infinite
        for stream in (1205178, 10174669, 10475606):
            yield random_case(f"{distribution}-{stream}", 4, (0, stream), distribution, "float32")
    for rows, cols in [(1, 1), (1, 5), (5, 1), (7, 7), (33, 16), (16, 61), (40, 40), (600, 150)]:
        yield orthogonal_case(rows, cols)
