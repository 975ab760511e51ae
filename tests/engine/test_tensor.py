"""Tensor: memory shared with NumPy, shapes checked, messages that help."""

import numpy as np
import pytest

import gristmill as gm


def test_numpy_shares_memory_both_ways():
    a = np.zeros((2, 3), np.float32)
    t = gm.from_numpy(a)
    a[1, 2] = 5
    assert t.numpy()[1, 2] == 5
    t.numpy()[0, 0] = 7
    assert a[0, 0] == 7


def test_array_protocol_and_dlpack():
    t = gm.tensor([[1.0, 2.0]])
    assert np.asarray(t).tolist() == [[1.0, 2.0]]
    assert np.from_dlpack(t).tolist() == [[1.0, 2.0]]
    assert gm.from_dlpack(np.arange(3, dtype=np.int64)).dtype == "int64"


def test_memory_outlives_the_tensor():
    a = gm.tensor(np.arange(1000, dtype=np.float32)).numpy()
    for _ in range(50):
        gm.zeros(1000)
    assert a[999] == 999


def test_bfloat16_rounds_to_nearest_even_and_back():
    x = np.array([1.0, 1.00390625, 1.01171875, np.inf, np.nan, 1e-40], np.float32)
    y = gm.tensor(x).bfloat16().float().numpy()
    assert y[0] == 1 and y[1] == 1 and y[2] == 1.015625 and np.isinf(y[3]) and np.isnan(y[4])


def test_reshape_and_split_messages():
    t = gm.zeros(2, 3)
    assert t.reshape(-1, 2).shape == (3, 2)
    with pytest.raises(ValueError, match=r"\(2, 3\) does not fit \(4, 2\)"):
        t.reshape(4, 2)
    with pytest.raises(ValueError, match="contiguous"):
        t.T.reshape(6)
    with pytest.raises(ValueError, match="add up to 3"):
        t.split([1, 1])
    with pytest.raises(ValueError, match="do not multiply"):
        t @ t


def test_float64_arrays_are_not_cast_silently():
    with pytest.raises(TypeError, match="float64"):
        gm.tensor(np.zeros(2))


def test_a_parameter_is_written_through_copy():
    p = gm.nn.Parameter(gm.zeros(2).array)
    with pytest.raises(ValueError, match="read-only"):
        p.numpy()[0] = 1
    p.copy_([1.0, 2.0])
    assert p.numpy().tolist() == [1, 2] and p.version == 1
    with pytest.raises(ValueError, match=r"\(3,\)"):
        p.copy_([1.0, 2.0, 3.0])


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_item_of_an_integer_is_that_integer(dtype):
    value = {"int32": 2**24 + 1, "int64": 2**62 + 1, "uint8": 255}[dtype]  # float32 has not the +1
    got = gm.tensor([value], dtype=dtype).item()
    assert got == value and type(got) is int


def test_item_of_a_number_that_has_a_fraction():
    for dtype in ("float32", "bfloat16"):
        got = gm.tensor([[0.5]], dtype=dtype).item()
        assert got == 0.5 and type(got) is float


def test_heads_need_a_last_stride_of_one_and_a_multiple():
    with pytest.raises(ValueError, match="heads: 2 heads"):
        gm.zeros(1, 4, 6).transpose(1, 2).heads(2)
    with pytest.raises(ValueError, match="heads: 4 heads"):
        gm.zeros(1, 4, 6).heads(4)
