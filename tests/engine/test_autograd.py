"""Differentiation: against finite differences in float64 of the same formula in NumPy."""

import numpy as np
import pytest

import gristmill as gm
from gristmill.nn import functional as F


def check(f, *shapes, seed=0):
    """Gradient of sum(f) by backward and by central differences of f on float64."""
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    tensors = [gm.tensor(v, requires_grad=True) for v in values]
    weights = None
    out = f(*tensors)
    weights = rng.standard_normal(out.shape).astype(np.float32)
    (out * gm.tensor(weights)).sum().backward()
    for k, value in enumerate(values):
        got = tensors[k].grad.numpy()
        step = 1e-2
        for index in list(np.ndindex(value.shape))[:12]:
            both = []
            for sign in (1, -1):
                moved = [v.copy() for v in values]
                moved[k][index] += sign * step
                y = f(*[gm.tensor(m) for m in moved]).numpy().astype(np.float64)
                both.append((y * weights).sum())
            want = (both[0] - both[1]) / (2 * step)
            assert got[index] == pytest.approx(want, rel=2e-2, abs=5e-3)


@pytest.mark.parametrize("op", ["tanh", "sigmoid", "exp", "square", "neg"])
def test_unary(op):
    check(lambda x: x._unary(op), (3, 5))


def test_binary_with_broadcasting():
    check(lambda a, b: a * b + a, (4, 3), (3,))
    check(lambda a, b: a - b * 2.0, (2, 3), (2, 1))


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 1), (2, 1, 3), (1, 1, 1), (2, 4, 1)])
def test_broadcasting_sums_what_was_repeated(shape):
    check(lambda a, b: a * b - b, (2, 4, 3), shape)


def test_division_and_maximum():
    check(lambda a, b: a / (b.square() + 1.0), (3, 4), (3, 4))
    check(lambda a, b: a._binary(b, "maximum"), (3, 4), (4,), seed=1)
    check(lambda a: a._binary(0.1, "maximum").relu(), (3, 4), seed=1)
    check(lambda a: (a.square() + 1.0).sqrt().log(), (3, 4))


def test_an_equal_maximum_gives_half_to_each():
    a, b = (gm.tensor([1.0, 2.0, 3.0], requires_grad=True) for _ in range(2))
    a._binary(b, "maximum").sum().backward()
    assert a.grad.numpy().tolist() == b.grad.numpy().tolist() == [0.5] * 3


def test_matmul():
    check(lambda a, b: a @ b, (3, 4), (4, 5))
    check(lambda a, b: a @ b, (2, 3, 4), (2, 4, 5))
    check(lambda a, b: a.T.contiguous() @ b, (4, 3), (4, 5))
    check(lambda a, b: a.T @ b.T, (4, 3), (5, 4))


def test_cross_entropy_and_embedding():
    targets = np.array([1, -1, 4, 0])
    check(lambda x: F.cross_entropy(x, targets), (4, 5))
    check(lambda w: F.embedding(np.array([[2, 0], [2, 1]]), w), (3, 4))
    with pytest.raises(ValueError, match="none counts"):
        F.cross_entropy(gm.zeros(2, 3), np.array([-1, -1]))
    with pytest.raises(TypeError, match="integers"):
        F.embedding(np.zeros(2), gm.zeros(3, 4))


def test_dropout_masks_forward_and_backward_alike():
    x = gm.tensor(np.ones(1000, np.float32), requires_grad=True)
    y = F.dropout(x, 0.25, 3, 5)
    y.sum().backward()
    assert (x.grad.numpy() == y.numpy()).all()
    assert 0.2 < (y.numpy() == 0).mean() < 0.3


def test_one_tensor_used_twice_gets_both_gradients():
    check(lambda a: a * a + a, (2, 3))


def test_slices_write_into_their_base():
    def f(x):
        a, b = x.split([2, 3])
        return a.contiguous() @ b.narrow(1, 0, 2).contiguous().T

    check(f, (4, 5))


def test_an_unused_slice_has_zero_gradient():
    x = gm.tensor(np.ones((2, 4), np.float32), requires_grad=True)
    x.narrow(1, 1, 2).contiguous().sum().backward()
    assert x.grad.numpy().tolist() == [[0, 1, 1, 0]] * 2


def test_no_grad_records_nothing():
    x = gm.tensor([1.0, 2.0], requires_grad=True)
    with gm.no_grad():
        y = x * 2.0
    assert not y.requires_grad
    with pytest.raises(RuntimeError, match="no_grad"):
        y.sum().backward()


def test_a_graph_is_used_once():
    x = gm.tensor([1.0], requires_grad=True)
    y = (x * 2.0).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="already used"):
        y.backward()


def test_a_gradient_needs_a_number():
    x = gm.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match=r"\.sum\(\)"):
        (x * 2.0).backward()


def test_a_deep_graph_does_not_recurse():
    x = gm.tensor([1.0], requires_grad=True)
    y = x
    for _ in range(5000):
        y = y + 0.0
    y.sum().backward()
    assert x.grad.item() == 1.0
