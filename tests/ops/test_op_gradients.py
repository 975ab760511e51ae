"""The ops of Python with their backward functions: values and gradients against the twins.

The kernels' errors are bounded elsewhere; here 1e-5 of the largest value is enough to see a wrong
operand, shape or slot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gristmill as gm
from gristmill.ops import (
    attention,
    cross_entropy,
    dropout,
    elementwise,
    embedding,
    gelu,
    layernorm,
    linear_cross_entropy,
    matmul,
    mse,
    reduce,
    relu,
    rmsnorm,
    rope,
    sigmoid,
    silu,
    softmax,
    swiglu,
    tanh,
)

IDS = np.array([[4, 0, 4], [1, 4, 2]])
TARGETS = np.array([[3, -100, 0], [1, 4, 2]])
SMOOTHINGS = (("", 0.0), ("_smoothed", 0.1))
COS, SIN = (f(np.arange(7)[:, None] / np.arange(1, 4)).astype(np.float32) for f in (np.cos, np.sin))
SCALE = 8**-0.5

Twin = Callable[..., Any]
# name: op on tensors, twin's value, twin's gradients (dout, *inputs), shapes of the inputs
OPS: dict[str, tuple[Twin, Twin, Twin, list[tuple[int, ...]]]] = {
    "linear": (
        matmul.linear,
        lambda x, w: x @ w.T,
        lambda d, x, w: (d @ w, np.einsum("btn,btk->nk", d, x)),
        [(2, 3, 20), (33, 20)],
    ),
    "linear_with_bias": (
        lambda x, w, b: matmul.linear(x, w, bias=b),
        lambda x, w, b: x @ w.T + b,
        lambda d, x, w, b: (d @ w, np.einsum("btn,btk->nk", d, x), d.sum(axis=(0, 1))),
        [(2, 3, 20), (33, 20), (33,)],
    ),
    "linear_of_a_transposed_weight": (
        lambda x, w, b: matmul.linear(x, w.T, bias=b),
        lambda x, w, b: x @ w + b,
        lambda d, x, w, b: (d @ w.T, np.einsum("btk,btn->kn", x, d), d.sum(axis=(0, 1))),
        [(2, 3, 20), (20, 33), (33,)],
    ),
    "matmul": (
        matmul.matmul,
        matmul.reference_forward,
        matmul.reference_backward,
        [(2, 5, 7), (2, 7, 17)],
    ),
    "attention": (
        attention.attention,
        lambda q, k, v: attention.reference_forward(q, k, v, None, SCALE, True)[0],
        lambda d, q, k, v: attention.reference_backward(d, q, k, v, None, SCALE, True),
        [(2, 5, 4, 8), (2, 5, 2, 8), (2, 5, 2, 8)],
    ),
    "rope": (
        lambda x: rope.rope(x, gm.from_numpy(COS), gm.from_numpy(SIN)),
        lambda x: rope.reference_forward(x, COS, SIN),
        lambda d, x: (rope.reference_backward(d, COS, SIN),),
        [(2, 5, 3, 6)],
    ),
    "rmsnorm": (
        lambda x, w: rmsnorm.rmsnorm(x, w, 1e-5),
        lambda x, w: rmsnorm.reference_forward(x.reshape(-1, 20), w, 1e-5)[0].reshape(x.shape),
        lambda d, x, w: _rmsnorm_backward(d, x, w),
        [(2, 3, 20), (20,)],
    ),
    "layernorm": (
        layernorm.layernorm,
        lambda x, w, b: layernorm.reference_forward(x.reshape(-1, 20), w, b, 1e-5)[0].reshape(
            x.shape
        ),
        lambda d, x, w, b: _layernorm_backward(d, x, w),
        [(2, 3, 20), (20,), (20,)],
    ),
    "layernorm_no_bias": (
        layernorm.layernorm,
        lambda x, w: layernorm.reference_forward(x.reshape(-1, 20), w, 0, 1e-5)[0].reshape(x.shape),
        lambda d, x, w: _layernorm_backward(d, x, w)[:2],
        [(2, 3, 20), (20,)],
    ),
    **{
        f"gelu_{kind}": (
            lambda x, kind=kind: gelu.gelu(x, kind),
            lambda x, kind=kind: gelu.reference_forward(x, kind == "tanh"),
            lambda d, x, kind=kind: (gelu.reference_backward(d, x, kind == "tanh"),),
            [(2, 3, 20)],
        )
        for kind in gelu.APPROXIMATE
    },
    "silu": (
        silu.silu,
        silu.reference_forward,
        lambda d, x: (silu.reference_backward(d, x),),
        [(2, 3, 20)],
    ),
    "softmax": (
        softmax.softmax,
        softmax.reference_forward,
        lambda d, x: (softmax.reference_backward(d, softmax.reference_forward(x)),),
        [(2, 3, 20)],
    ),
    "swiglu": (
        swiglu.swiglu,
        swiglu.reference_forward,
        swiglu.reference_backward,
        [(2, 3, 20), (2, 3, 20)],
    ),
    "embedding": (
        lambda w: embedding.embedding(IDS, w),
        lambda w: embedding.reference_forward(w, IDS),
        lambda d, w: (embedding.reference_backward(d.reshape(6, -1), IDS.reshape(-1), 5),),
        [(5, 20)],
    ),
    "dropout": (
        lambda x: dropout.dropout(x, 0.3, 1, 2),
        lambda x: dropout.reference_forward(x.reshape(-1), 1, 2, 0.3).reshape(x.shape),
        lambda d, x: (dropout.reference_backward(d.reshape(-1), 1, 2, 0.3).reshape(x.shape),),
        [(3, 20)],
    ),
    **{
        f"cross_entropy{name}": (
            lambda x, s=s: cross_entropy.cross_entropy(x, TARGETS, s),
            lambda x, s=s: _mean_loss(x.reshape(6, 5), s),
            lambda d, x, s=s: (_mean_loss_backward(d, x.reshape(6, 5), s).reshape(x.shape),),
            [(2, 3, 5)],
        )
        for name, s in SMOOTHINGS
    },
    **{
        f"linear_cross_entropy{name}": (
            lambda x, w, s=s: linear_cross_entropy.linear_cross_entropy(
                x, w, TARGETS, "float32", s
            ),
            lambda x, w, s=s: _mean_loss(x.reshape(6, -1) @ w.T, s),
            lambda d, x, w, s=s: _head_backward(d, x, w, s),
            [(2, 3, 20), (5, 20)],
        )
        for name, s in SMOOTHINGS
    },
    "total": (
        reduce.total,
        lambda x: np.array([x.sum()]),
        lambda d, x: (np.full(x.shape, d[0]),),
        [(3, 20)],
    ),
    **{
        op: (
            lambda x, y, op=op: elementwise.binary(x, y, op),
            lambda x, y, op=op: elementwise.reference_forward(op, x, y),
            lambda d, x, y, op=op: elementwise.reference_backward(d, op, x, y),
            [(4, 3, 20), (3, 1)],
        )
        for op in ("add", "sub", "mul", "div", "maximum")
    },
    **{
        op: (
            lambda x, op=op: elementwise.unary(x, op),
            lambda x, op=op: elementwise.reference_forward(op, x),
            lambda d, x, op=op: elementwise.reference_backward(d, op, x),
            [(3, 20)],
        )
        for op in ("neg", "exp", "log", "sqrt", "square")
    },
    **{
        name: (
            op,
            twin.reference_forward,
            lambda d, x, twin=twin: (twin.reference_backward(d, twin.reference_forward(x)),),
            [(2, 3, 20)],
        )
        for name, op, twin in (
            ("relu", relu.relu, relu),
            ("tanh", tanh.tanh, tanh),
            ("sigmoid", sigmoid.sigmoid, sigmoid),
        )
    },
    "mse": (mse.mse, mse.reference_forward, mse.reference_backward, [(2, 3, 20), (2, 3, 20)]),
}
POSITIVE = ("log", "sqrt")


def _rmsnorm_backward(d: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
    flat, dout = x.reshape(-1, 20), d.reshape(-1, 20)
    rstd = rmsnorm.reference_forward(flat, w, 1e-5)[1]
    dx, dw = rmsnorm.reference_backward(dout, flat, w, rstd)
    return dx.reshape(x.shape), dw


def _layernorm_backward(d: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
    flat, dout = x.reshape(-1, 20), d.reshape(-1, 20)
    _, mean, rstd = layernorm.reference_forward(flat, w, 0, 1e-5)
    dx, dw, db = layernorm.reference_backward(dout, flat, w, mean, rstd)
    return dx.reshape(x.shape), dw, db


def _mean_loss(logits: np.ndarray, smoothing: float) -> np.ndarray:
    losses, _ = cross_entropy.reference_forward(logits, TARGETS.reshape(-1), smoothing)
    return np.array([losses.sum() / 5])


def _mean_loss_backward(d: np.ndarray, logits: np.ndarray, smoothing: float) -> np.ndarray:
    each = np.full(6, d[0] / 5)
    return cross_entropy.reference_backward(each, logits, TARGETS.reshape(-1), smoothing)


def _head_backward(
    d: np.ndarray, x: np.ndarray, w: np.ndarray, smoothing: float
) -> tuple[np.ndarray, ...]:
    flat = x.reshape(6, -1)
    targets = TARGETS.reshape(-1)
    dx, dw = linear_cross_entropy.reference_backward(d[0] / 5, flat, w, targets, smoothing)
    return dx.reshape(x.shape), dw


def close(got: np.ndarray, want: np.ndarray, what: str) -> None:
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max(), err_msg=what)


def generator(name: str) -> np.random.Generator:
    """A seed of its own for each case, so that one can run alone."""
    return np.random.default_rng(list(name.encode()))


def draw(name: str) -> list[np.ndarray]:
    rng = generator(name)
    values = [rng.normal(size=s).astype(np.float32) for s in OPS[name][3]]
    return [np.abs(v) + np.float32(0.5) for v in values] if name in POSITIVE else values


@pytest.mark.parametrize("name", OPS)
def test_value_and_gradients(name: str) -> None:
    op, forward, backward, _ = OPS[name]
    values = draw(name)
    exact = [v.astype(np.float64) for v in values]
    tensors = [gm.tensor(v, requires_grad=True) for v in values]
    out = op(*tensors)
    close(out.numpy(), forward(*exact), "value")
    dout = generator(name + ", dout").normal(size=out.shape).astype(np.float32)
    out.backward(gm.from_numpy(dout))
    want = backward(dout.astype(np.float64), *exact)
    for i, (tensor, gradient) in enumerate(zip(tensors, want, strict=True)):
        close(tensor.grad.numpy(), gradient, f"gradient {i}")


@pytest.mark.parametrize("name", OPS)
def test_two_uses_add_their_gradients(name: str) -> None:
    """A second use accumulates into the first one's gradient: double, up to the order of adding."""
    op = OPS[name][0]
    values = draw(name)
    gradients = []
    for uses in (1, 2):
        tensors = [gm.tensor(v, requires_grad=True) for v in values]
        outs = [op(*tensors) for _ in range(uses)]
        (outs[0] + outs[1] if uses == 2 else outs[0]).sum().backward()
        gradients.append([t.grad.numpy() for t in tensors])
    for i, (once, twice) in enumerate(zip(*gradients, strict=True)):
        close(twice, 2 * once, f"gradient {i}")


@pytest.mark.parametrize(
    "name", ["linear", "attention", "swiglu", "matmul", "linear_cross_entropy"]
)
def test_only_what_requires_a_gradient_gets_one(name: str) -> None:
    op = OPS[name][0]
    values = draw(name)
    everything = [gm.tensor(v, requires_grad=True) for v in values]
    op(*everything).sum().backward()
    for wanted in range(len(values)):
        tensors = [gm.tensor(v, requires_grad=i == wanted) for i, v in enumerate(values)]
        op(*tensors).sum().backward()
        close(tensors[wanted].grad.numpy(), everything[wanted].grad.numpy(), f"gradient {wanted}")
        assert all(t.grad is None for i, t in enumerate(tensors) if i != wanted)


def test_attention_on_slices_of_one_projection() -> None:
    """q, k and v as adjacent slices: gradients land side by side in the projection's own."""
    x = generator("slices").normal(size=(2, 5, 64)).astype(np.float32)
    whole = gm.tensor(x, requires_grad=True)
    parts = whole.split([32, 16, 16])
    q, k, v = (p.heads(n) for p, n in zip(parts, (4, 2, 2), strict=True))
    attention.attention(q, k, v).sum().backward()
    exact = x.astype(np.float64)
    heads = [exact[..., a:b].reshape(2, 5, -1, 8) for a, b in ((0, 32), (32, 48), (48, 64))]
    ones = np.ones((2, 5, 4, 8))
    grads = attention.reference_backward(ones, *heads, None, SCALE, True)
    close(whole.grad.numpy(), np.concatenate([g.reshape(2, 5, -1) for g in grads], -1), "gradient")


def test_bfloat16_inputs_give_bfloat16_gradients_near_those_of_float32() -> None:
    rng = generator("bfloat16")
    values = [rng.normal(size=s).astype(np.float32) for s in ((4, 20), (17, 20))]
    plain = [gm.tensor(v, requires_grad=True) for v in values]
    short = [gm.tensor(v, dtype="bfloat16", requires_grad=True) for v in values]
    a, b = matmul.linear(*plain), matmul.linear(*short, compute="bfloat16")
    assert b.dtype == "bfloat16"
    a.sum().backward()
    b.sum().backward()
    for x, y in zip(plain, short, strict=True):
        assert y.grad.dtype == "bfloat16"
        want = x.grad.numpy()
        np.testing.assert_allclose(y.grad.float().numpy(), want, atol=0.02 * np.abs(want).max())
