"""random and orthogonal: values against the twin, the distribution, and no number lost."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from cases import Case, Floats, U
from oracle import table, verify

from gristmill.backend import _C
from gristmill.lab.cases.init import BIG, ENDS, cases
from gristmill.ops.init import box_muller, philox, uniform


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
    assert abs((z[::2] * z[1::2]).mean()) < five * math.sqrt(2)  # of one pair of words
    tail = math.erfc(4 / math.sqrt(2))
    assert abs((np.abs(z) > 4).mean() - tail) < five * math.sqrt(tail)
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


def test_a_largest_and_a_smallest_word_give_finite_numbers() -> None:
    """u = 1 has radius 0, u = 2^-33 the largest there is."""
    words = np.array([2**32 - 1, 0], np.uint32)
    z = box_muller(words, np.array([0, 0], np.uint32))
    np.testing.assert_allclose(np.hypot(z[::2], z[1::2]), [0, math.sqrt(66 * math.log(2))])


def test_the_bits_stay_what_they_are() -> None:
    """First weights are a receipt of their seed: these change on purpose only."""
    digests = {}
    for name, (a, b) in ENDS.items():
        out = _C.empty((100_003,))
        for table_name in _C.tables():
            with table(table_name, 3):
                _C.random(out, BIG, 5, name, a, b)
            digest = hashlib.sha256(out.numpy().tobytes()).hexdigest()[:16]
            assert digests.setdefault(name, digest) == digest, table_name
    assert digests == {
        "uniform": "daa809bf7feaf1f3",
        "normal": "251b07d71503f7a4",
        "truncated_normal": "d009b6ad2b68f533",
    }


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
