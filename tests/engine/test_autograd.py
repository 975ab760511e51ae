"""How gradients flow through a graph: broadcasting, views, several uses, numbers, messages.

The ops themselves are in tests/ops/test_op_gradients.py. Here formulas are polynomials of degree
two at most in each element (or change slope between the values) and all values are small integers,
so float32 is exact, and so are central differences of the same formula in NumPy's float64.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gristmill as gm
from gristmill.nn import functional as F
from gristmill.ops.attention import attention
from gristmill.ops.swiglu import swiglu

STEP = 0.25


def check(f, *shapes, twin=None, seed=0):
    """Each element of each gradient of sum(weights * f) equals its central difference, exactly."""
    rng = np.random.default_rng(seed)
    values = [rng.integers(-4, 5, s).astype(np.float64) for s in shapes]
    tensors = [gm.tensor(v.astype(np.float32), requires_grad=True) for v in values]
    twin = twin or f
    weights = rng.integers(1, 5, twin(*values).shape).astype(np.float64)
    out = f(*tensors)
    assert (out.numpy() == twin(*values)).all()
    out.backward(gm.tensor(weights.astype(np.float32)))
    for k, value in enumerate(values):
        want = np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            sides = []
            for sign in (1, -1):
                moved = [v.copy() for v in values]
                moved[k][index] += sign * STEP
                sides.append((twin(*moved) * weights).sum())
            want[index] = (sides[0] - sides[1]) / (2 * STEP)
        assert tensors[k].grad.numpy().tolist() == want.tolist(), f"input {k}"


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 1), (2, 1, 3), (1, 1, 1), (2, 4, 1)])
def test_broadcasting_sums_what_was_repeated(shape):
    check(lambda a, b: a * b - b, (2, 4, 3), shape)


@pytest.mark.parametrize(
    "f",
    [lambda a: a + 2.0, lambda a: a - 2.0, lambda a: 2.0 - a, lambda a: a * 3.0, lambda a: a / 4.0],
    ids=["add", "sub", "rsub", "mul", "div"],
)
def test_a_number_as_operand(f):
    check(f, (3, 5))


def test_kinks_between_the_values():
    check(lambda a: a._binary(0.5, "maximum"), (4, 5), twin=lambda a: np.maximum(a, 0.5))
    check(lambda a: (a + 0.5).relu(), (4, 5), twin=lambda a: np.maximum(a + 0.5, 0))
    check(
        lambda a, b: a._binary(b + 0.5, "maximum"), (4, 5), (5,),
        twin=lambda a, b: np.maximum(a, b + 0.5),
    )  # fmt: skip


@pytest.mark.parametrize("op", ["relu", "tanh", "sigmoid"])
def test_activations_take_any_strides_and_no_dimension(op):
    x = gm.tensor(np.arange(-3, 3, dtype=np.float32).reshape(2, 3), requires_grad=True)
    plain = gm.tensor(x.numpy().T.copy(), requires_grad=True)
    for a in (x.T, plain):
        getattr(a, op)().sum().backward()
    assert (plain.grad.numpy() == x.grad.numpy().T).all()
    one = getattr(gm.tensor(2.0), op)()
    assert (one.shape, one.item()) == ((), getattr(gm.tensor([2.0]), op)().item())


def test_sum_and_mean():
    check(lambda a: (a * a).sum() * 2.0, (3, 4), twin=lambda a: 2 * (a * a).sum().reshape(1))
    check(lambda a: a.mean(), (4, 4), twin=lambda a: a.mean().reshape(1))


def test_products_of_transposed_matrices():
    check(lambda a, b: a.T @ b.T, (4, 3), (5, 4))
    check(lambda a, b: a.T.contiguous() @ b, (4, 3), (4, 5), twin=lambda a, b: a.T @ b)


def test_an_equal_maximum_gives_half_to_each():
    a, b = (gm.tensor([1.0, 2.0, 3.0], requires_grad=True) for _ in range(2))
    a._binary(b, "maximum").sum().backward()
    assert a.grad.numpy().tolist() == b.grad.numpy().tolist() == [0.5] * 3


def test_messages_of_losses_and_embeddings():
    with pytest.raises(ValueError, match="none counts"):
        F.cross_entropy(gm.zeros(2, 3), np.array([-1, -1]))
    with pytest.raises(TypeError, match="integers"):
        F.embedding(np.zeros(2), gm.zeros(3, 4))


def test_one_tensor_used_twice_gets_both_gradients():
    check(lambda a: a * a + a, (2, 3))


def test_slices_write_into_their_base():
    def f(x):
        a, b = x.split([2, 3])
        return a.contiguous() @ b.narrow(1, 0, 2).contiguous().T

    check(f, (4, 5), twin=lambda x: x[:, :2] @ x[:, 2:4].T)


def test_a_slice_and_its_base():
    def f(x):
        return x.narrow(1, 1, 2).contiguous() + (x * x).narrow(1, 0, 2).contiguous()

    check(f, (3, 4), twin=lambda x: x[:, 1:3] + (x * x)[:, :2])


def test_an_unused_slice_has_zero_gradient():
    x = gm.tensor(np.ones((2, 4), np.float32), requires_grad=True)
    x.narrow(1, 1, 2).contiguous().sum().backward()
    assert x.grad.numpy().tolist() == [[0, 1, 1, 0]] * 2


@pytest.mark.parametrize(
    ("slices", "want"),
    [
        (((0, 3), (1, 3)), [1, 2, 2, 1]),
        (((0, 4), (0, 2)), [2, 2, 1, 1]),
        (((0, 2), (0, 4)), [2, 2, 1, 1]),
        (((1, 2), (1, 2)), [0, 2, 2, 0]),
        (((0, 2), (2, 1), (1, 2)), [1, 2, 2, 0]),
    ],
)
def test_slices_that_overlap_add_up(slices, want):
    x = gm.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    total = sum((x.narrow(0, start, n).sum() for start, n in slices), start=gm.zeros(1))
    total.backward()
    assert x.grad.numpy().tolist() == want


@st.composite
def chains(draw):
    """Up to four chains of up to three views each, and the shape they start from."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    steps = st.tuples(
        st.sampled_from(["narrow", "transpose", "reshape"]),
        st.tuples(*[st.integers(0, 11)] * 3),
    )
    return shape, draw(st.lists(st.lists(steps, max_size=3), min_size=1, max_size=4))


def view(x, kind, numbers):
    """One view of a tensor or of a NumPy array, by their own means."""
    shape, ours = tuple(x.shape), isinstance(x, gm.Tensor)
    a, b = numbers[0] % len(shape), numbers[1] % len(shape)
    if kind == "transpose":
        return x.transpose(a, b) if ours else np.swapaxes(x, a, b)
    if kind == "narrow":
        start = numbers[1] % shape[a]
        n = 1 + numbers[2] % (shape[a] - start)
        at = (slice(None),) * a + (slice(start, start + n),)
        return x.narrow(a, start, n) if ours else x[at]
    contiguous = x.is_contiguous() if ours else x.flags["C_CONTIGUOUS"]
    return x.reshape(-1) if contiguous else x


@given(chains(), st.booleans(), st.integers(0, 99))
def test_any_views_of_one_tensor_give_the_gradient_of_numpy(chained, leaf, seed):
    """f is linear in x: its gradient collects the weights at the elements each view shows.

    All values are small integers, so float32 is exact.
    """
    shape, many = chained
    rng = np.random.default_rng(seed)
    x = gm.tensor(rng.integers(-4, 5, shape).astype(np.float32), requires_grad=True)
    base = x if leaf else x * 2.0
    want, parts = np.zeros(shape), []
    where = np.arange(want.size).reshape(shape)
    for steps in many:
        part, index = base, where
        for kind, numbers in steps:
            part, index = view(part, kind, numbers), view(index, kind, numbers)
        weights = rng.integers(1, 5, index.shape).astype(np.float64)
        parts.append((part * gm.tensor(weights.astype(np.float32))).sum())
        np.add.at(want.reshape(-1), index.reshape(-1), weights.reshape(-1))
    sum(parts[1:], start=parts[0]).backward()
    assert x.grad.numpy().tolist() == (want if leaf else 2 * want).tolist()


def test_a_kernel_with_several_gradients_may_get_one_tensor_twice():
    """The same numbers as from separate tensors, whose gradients are added here."""
    rng = np.random.default_rng(0)
    value = rng.standard_normal((1, 5, 2, 8)).astype(np.float32)
    for op, slices in (
        (lambda q, k, v: attention(q, k, v), ((0, 5), (0, 5), (0, 5))),
        (lambda q, k, v: attention(q, k, v), ((0, 4), (1, 4), (0, 4))),
        (lambda gate, up: swiglu(gate, up), ((0, 5), (0, 5))),
        (lambda gate, up: swiglu(gate, up), ((0, 4), (1, 4))),
    ):
        x = gm.tensor(value, requires_grad=True)
        op(*(x.narrow(1, *s) for s in slices)).sum().backward()
        alone = [gm.tensor(value[:, s : s + n], requires_grad=True) for s, n in slices]
        op(*alone).sum().backward()
        want = np.zeros(value.shape, np.float64)
        for (start, n), t in zip(slices, alone, strict=True):
            want[:, start : start + n] += t.grad.numpy()
        # two float32 additions of numbers below 8, half a unit of the last place (2**-22) each
        assert np.abs(want).max() < 8
        assert np.abs(x.grad.numpy() - want).max() <= 2 * 2.0**-22


def test_a_view_of_a_leaf_with_gaps_is_refused():
    """Its gradient is contiguous: a view with the data's strides would show other elements."""
    x = gm.from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3).T)
    x.requires_grad = True
    with pytest.raises(ValueError, match=r"strides \(1, 3\).*contiguous\(\)"):
        x.T  # noqa: B018
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    (x * gm.tensor(weights)).sum().backward()  # without a view it has one
    assert x.grad.numpy().tolist() == weights.tolist()


def test_a_gradient_with_strides_of_its_own():
    x = gm.tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    turned = x.T
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    (x + 0.0).backward(gm.from_numpy(weights).T)
    assert x.grad.numpy().tolist() == weights.T.tolist()
    assert turned.grad.numpy().tolist() == weights.tolist()


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
