"""A packed operand: the same bits as the plain one, and refused where it does not belong."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, portable
from oracle import verify

from gristmill.backend import _C
from gristmill.lab.cases.matmul_pack import cases


@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_packed_product_agrees_with_the_twin(case: Case) -> None:
    verify(case)


def test_kernel_check_gets_the_fields_of_the_product() -> None:
    for case in cases():
        written = portable(case)
        assert written.entry == "matmul_pack"
        assert list(written.fields) == [f["name"] for f in _C.describe("matmul")["fields"]]


def product(a: np.ndarray, b: np.ndarray, compute: str, packed: object = None) -> np.ndarray:
    out = _C.empty((1, a.shape[0], b.shape[1]))
    left, right = (_C.from_numpy(x[None]) for x in (a, b))
    _C.matmul(out, left, right, compute, packed)
    return out.numpy()[0].copy()


@pytest.fixture(params=_C.tables())
def table(request: pytest.FixtureRequest):
    before = _C.table()
    _C.select(request.param)
    yield request.param
    _C.select(before)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 12, 13])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (7, 31), (128, 32), (385, 33), (801, 65)])
def test_packed_gives_the_same_bits(table: str, compute: str, rows: int, k: int, n: int) -> None:
    rng = np.random.default_rng(k)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((rows, k), (k, n)))
    packed = _C.matmul_pack(_C.from_numpy(b), compute)
    assert (product(a, b, compute, packed) == product(a, b, compute)).all()


def test_a_pack_of_another_shape_type_or_table_is_refused() -> None:
    a, b = np.ones((2, 64), np.float32), np.ones((64, 64), np.float32)
    packed = _C.matmul_pack(_C.from_numpy(b), "float32")
    with pytest.raises(ValueError, match="call matmul_pack again"):
        product(a, b, "bfloat16", packed)
    with pytest.raises(ValueError, match="call matmul_pack again"):
        product(a[:, :32], b[:32], "float32", packed)
    before = _C.table()
    other = next((t for t in _C.tables() if t != before), None)
    if other is not None:
        _C.select(other)
        try:
            with pytest.raises(ValueError, match="call matmul_pack again"):
                product(a, b, "float32", packed)
        finally:
            _C.select(before)


def test_a_part_of_a_pack_is_refused() -> None:
    """Its first 64 bytes are a header that fits; the kernel would read on behind them."""
    a, b = np.ones((2, 64), np.float32), np.ones((64, 64), np.float32)
    packed = _C.matmul_pack(_C.from_numpy(b), "float32")
    n = packed.size
    twice = _C.empty((2 * n,), "uint8")
    twice.numpy()[::2] = packed.numpy()
    twice.numpy()[:64] = packed.numpy()[:64]
    for part in (packed.view((64,)), packed.view((n - 1,)), twice, twice.view((n,), (2,))):
        with pytest.raises(ValueError, match="call matmul_pack again"):
            product(a, b, "float32", part)
