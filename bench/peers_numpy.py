"""NumPy at the work of the kernel table: what a user writes without a library of kernels.

Each function takes what the binding of its entry takes, prepares, and gives the call to be timed;
None where it cannot do these arguments. Scratch is allocated before, results go into `out`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Prepared = Callable[[], object] | None


def matmul(out: Array, a: Array, b: Array, compute: str, packed: Any = None) -> Prepared:
    if compute != "float32" or packed is not None:
        return None
    if len(out) == 1:  # in one product; a stack goes through a loop inside NumPy
        out, a, b = out[0], a[0], b[0]
    return lambda: np.matmul(a, b, out=out)


def gelu_forward(out: Array, x: Array, approximate: bool) -> Prepared:
    if not approximate:
        return None  # NumPy has no erf

    def run() -> None:
        np.multiply(x, x, out=out)
        np.multiply(out, 0.7978845608 * 0.044715, out=out)
        np.add(out, 0.7978845608, out=out)
        np.multiply(out, x, out=out)
        np.tanh(out, out=out)
        np.add(out, 1, out=out)
        np.multiply(out, x, out=out)
        np.multiply(out, 0.5, out=out)

    return run


def _silu(out: Array, x: Array) -> None:
    np.negative(x, out=out)
    np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.divide(x, out, out=out)


def silu_forward(out: Array, x: Array) -> Prepared:
    return lambda: _silu(out, x)


def swiglu_forward(out: Array, gate: Array, up: Array) -> Prepared:
    def run() -> None:
        _silu(out, gate)
        np.multiply(out, up, out=out)

    return run


def relu_forward(out: Array, x: Array) -> Callable[[], object]:
    return lambda: np.maximum(x, 0, out=out)


def relu_backward(dx: Array, dout: Array, out: Array) -> Prepared:
    positive = np.empty(out.shape, bool)

    def run() -> None:
        np.greater(out, 0, out=positive)
        np.multiply(dout, positive, out=dx)

    return run


def tanh_forward(out: Array, x: Array) -> Callable[[], object]:
    return lambda: np.tanh(x, out=out)


def tanh_backward(dx: Array, dout: Array, out: Array) -> Prepared:
    def run() -> None:
        np.multiply(out, out, out=dx)
        np.subtract(1, dx, out=dx)
        np.multiply(dx, dout, out=dx)

    return run


def sigmoid_forward(out: Array, x: Array) -> Callable[[], object]:
    def run() -> None:
        np.negative(x, out=out)
        np.exp(out, out=out)
        np.add(out, 1, out=out)
        np.reciprocal(out, out=out)

    return run


def sigmoid_backward(dx: Array, dout: Array, out: Array) -> Prepared:
    def run() -> None:
        np.subtract(1, out, out=dx)
        np.multiply(dx, out, out=dx)
        np.multiply(dx, dout, out=dx)

    return run


def mse_forward(loss: Array, x: Array, target: Array) -> Prepared:
    scratch = np.empty_like(x)

    def run() -> None:
        np.subtract(x, target, out=scratch)
        np.multiply(scratch, scratch, out=scratch)
        np.mean(scratch, keepdims=True, out=loss)

    return run


def mse_backward(
    dx: Array | None, dtarget: Array | None, dloss: Array, x: Array, target: Array
) -> Prepared:
    if dx is None or dtarget is not None:
        return None
    out, scale = dx, dloss * np.float32(2 / x.size)

    def run() -> None:
        np.subtract(x, target, out=out)
        np.multiply(out, scale, out=out)

    return run


def layernorm_forward(
    out: Array,
    mean: Array | None,
    rstd: Array | None,
    x: Array,
    weight: Array,
    bias: Any,
    eps: float,
) -> Prepared:
    if mean is None or rstd is None or bias is None:
        return None
    scratch = np.empty_like(out)

    def run() -> None:
        np.mean(x, axis=1, out=mean)
        np.subtract(x, mean[:, None], out=out)
        np.multiply(out, out, out=scratch)
        np.mean(scratch, axis=1, out=rstd)
        np.add(rstd, eps, out=rstd)
        np.sqrt(rstd, out=rstd)
        np.divide(1, rstd, out=rstd)
        np.multiply(out, rstd[:, None], out=out)
        np.multiply(out, weight, out=out)
        np.add(out, bias, out=out)

    return run


def rmsnorm_forward(
    out: Array, rstd: Array | None, x: Array, weight: Array, eps: float
) -> Prepared:
    if rstd is None:
        return None

    def run() -> None:
        np.multiply(x, x, out=out)
        np.mean(out, axis=1, out=rstd)
        np.add(rstd, eps, out=rstd)
        np.sqrt(rstd, out=rstd)
        np.divide(1, rstd, out=rstd)
        np.multiply(x, rstd[:, None], out=out)
        np.multiply(out, weight, out=out)

    return run


def reduce(out: Array, x: Array, op: str) -> Prepared:
    if op == "sum_of_squares":
        scratch = np.empty_like(x)

        def run() -> None:
            np.multiply(x, x, out=scratch)
            np.sum(scratch, axis=1, out=out)

        return run
    call = {"sum": np.sum, "mean": np.mean, "max": np.max}[op]
    return lambda: call(x, axis=1, out=out)


def embedding_forward(out: Array, weight: Array, ids: Array) -> Prepared:
    return lambda: np.take(weight, ids, axis=0, out=out, mode="clip")


def adamw(
    param: Array, m: Array, v: Array, grad: Array, step: Array,
    beta1: float, beta2: float, eps: float, decay: float,
) -> Prepared:  # fmt: skip
    a, b = np.empty_like(param), np.empty_like(param)

    def run() -> None:
        rate, scale, left1, left2 = (float(s) for s in step)
        np.multiply(grad, scale, out=a)
        np.multiply(m, beta1, out=m)
        np.multiply(a, 1 - beta1, out=b)
        np.add(m, b, out=m)
        np.multiply(a, a, out=a)
        np.multiply(a, 1 - beta2, out=a)
        np.multiply(v, beta2, out=v)
        np.add(v, a, out=v)
        np.divide(v, left2, out=a)
        np.sqrt(a, out=a)
        np.add(a, eps, out=a)
        np.divide(m, a, out=a)
        np.multiply(a, rate / left1, out=a)
        np.multiply(param, 1 - rate * decay, out=param)
        np.subtract(param, a, out=param)

    return run


PRODUCTS = {"matmul": matmul}
TABLE: dict[str, Callable[..., Prepared]] = {
    f.__name__: f
    for f in (
        *(gelu_forward, silu_forward, swiglu_forward, layernorm_forward, rmsnorm_forward),
        *(relu_forward, relu_backward, tanh_forward, tanh_backward),
        *(sigmoid_forward, sigmoid_backward, mse_forward, mse_backward),
        *(reduce, embedding_forward, adamw),
    )
}
