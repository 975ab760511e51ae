"""random and orthogonal: values against the twin, the distribution, and no number lost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import Case, Floats, U
from oracle import table, verify

from gristmill.backend import _C
from gristmill.lab.cases.init import cases
from gristmill.ops.init import philox, uniform


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
