"""random and orthogonal: values against the twin, the distribution, and no number lost."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from cases import SIZES, Case, Floats, U, given, wanted
from oracle import table, verify

from gristmill.backend import _C
from gristmill.ops.init import philox, reference_forward, reference_orthogonal, uniform

ENDS = {"uniform": (-0.3, 0.7), "normal": (0.1, 0.02), "truncated_normal": (-0.1, 1.5)}
BIG = 0x9E3779B97F4A7C15


def random_case(name: str, n: int, key: tuple[int, int], distribution: str, dtype: str) -> Case:
    a, b = (float(np.float32(x)) for x in ENDS[distribution])
    y = reference_forward(n, *key, distribution, a, b)
    # the inverse: 12 U (Giles' polynomials, a logarithm, the truncation's share); b - a and the fma
    size = 3 * (abs(a) + abs(b)) if distribution == "uniform" else 12 * np.abs(y - a) + 2 * abs(a)
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
        for n in (*SIZES, 5000):
            yield random_case(f"{distribution}-{n}", n, (3, 5), distribution, "float32")
        yield random_case(f"{distribution}-bf16", 61, (3, 5), distribution, "bfloat16")
        yield random_case(f"{distribution}-big-key", 33, (BIG, BIG ^ 1), distribution, "float32")
        # words of all ones: the largest number must not become 1, whose normal is infinite
        for stream in (1205178, 10174669, 10475606):
            yield random_case(f"{distribution}-{stream}", 4, (0, stream), distribution, "float32")
    for rows, cols in [(1, 1), (1, 5), (5, 1), (7, 7), (33, 16), (16, 61), (40, 40)]:
        yield orthogonal_case(rows, cols)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


def test_philox_gives_the_authors_vectors() -> None:
    """Known answer of Random123 (kat_vectors, philox4x32 10): counter and key all zero."""
    assert philox(0, 0, 4).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def draw(n: int, distribution: str) -> Floats:
    out = _C.empty((n,))
    _C.random(out, 11, 0, distribution, 0.0, 1.0)
    return out.numpy().astype(np.float64)


def test_moments() -> None:
    """Five standard errors of the mean, variance and fourth moment of 2^20 numbers."""
    n = 2**20
    five = 5 / math.sqrt(n)
    z = draw(n, "normal")
    assert abs(z.mean()) < five and abs(z.var() - 1) < five * math.sqrt(2)
    assert abs((z**4).mean() - 3) < five * math.sqrt(96)
    cut = draw(n, "truncated_normal")
    assert np.abs(cut).max() < 2
    density, share = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    assert abs(cut.var() - (1 - 4 * density / share)) < five * math.sqrt(2)
    u = draw(n, "uniform")
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < five / math.sqrt(12)


def test_numbers_do_not_depend_on_how_many_are_drawn() -> None:
    long, short = uniform(5, 6, 1000), uniform(5, 6, 37)
    np.testing.assert_array_equal(long[:37], short)
    np.testing.assert_array_equal(draw(1000, "normal")[:37], draw(37, "normal"))


@pytest.mark.parametrize("rows, cols", [(64, 64), (30, 100), (100, 30)])
def test_orthogonal_rows_or_columns(rows: int, cols: int) -> None:
    """Twice is enough: orthogonal to working precision, whatever the condition."""
    for name in _C.tables():
        out = _C.empty((rows, cols))
        with table(name):
            _C.random(out.view((rows * cols,)), 1, 2, "normal", 0.0, 1.0)
            _C.orthogonal(out, 2.0)
        q = out.numpy().astype(np.float64) / 2
        small = q @ q.T if rows <= cols else q.T @ q
        n, length = min(rows, cols), max(rows, cols)
        assert np.abs(small - np.eye(n)).max() < 4 * math.sqrt(n * length) * U


def test_an_unknown_distribution_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'cauchy' is not one of uniform, normal, truncated"):
        _C.random(_C.empty((3,)), 0, 0, "cauchy", 0.0, 1.0)
