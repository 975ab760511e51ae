"""numba at the work of the kernel table: the loops as a user writes them, on all threads.

Compiled with fastmath, which ours may not use: results may differ in the last bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import prange

compiled = numba.njit(parallel=True, fastmath=True, error_model="numpy")
one, half = np.float32(1), np.float32(0.5)


@compiled
def _gelu_tanh(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        for j in range(x.shape[1]):
            y = x[i, j]
            u = np.float32(1.5957691216) * (y + np.float32(0.044715) * y * y * y)
            out[i, j] = y / (one + math.exp(-u))


@compiled
def _gelu_erf(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = half * x[i, j] * (one + math.erf(x[i, j] * np.float32(math.sqrt(0.5))))


@compiled
def _silu(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] / (one + math.exp(-x[i, j]))


@compiled
def _swiglu(out: Any, gate: Any, up: Any) -> None:
    for i in prange(gate.shape[0]):
        for j in range(gate.shape[1]):
            out[i, j] = gate[i, j] / (one + math.exp(-gate[i, j])) * up[i, j]


@compiled
def _relu(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = max(x[i, j], np.float32(0))


@compiled
def _tanh(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = math.tanh(x[i, j])


@compiled
def _sigmoid(out: Any, x: Any) -> None:
    for i in prange(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = one / (one + math.exp(-x[i, j]))


@compiled
def _mse(loss: Any, x: Any, target: Any) -> None:
    total = np.float32(0)
    for i in prange(x.shape[0]):
        total += (x[i] - target[i]) * (x[i] - target[i])
    loss[0] = total / np.float32(x.shape[0])


@compiled
def _rmsnorm(out: Any, rstd: Any, x: Any, weight: Any, eps: Any) -> None:
    for i in prange(x.shape[0]):
        total = np.float32(0)
        for j in range(x.shape[1]):
            total += x[i, j] * x[i, j]
        r = one / math.sqrt(total / np.float32(x.shape[1]) + eps)
        rstd[i] = r
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] * r * weight[j]


@compiled
def _layernorm(out: Any, mean: Any, rstd: Any, x: Any, weight: Any, bias: Any, eps: Any) -> None:
    for i in prange(x.shape[0]):
        n = np.float32(x.shape[1])
        total = np.float32(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        m = total / n
        total = np.float32(0)
        for j in range(x.shape[1]):
            total += (x[i, j] - m) * (x[i, j] - m)
        r = one / math.sqrt(total / n + eps)
        mean[i] = m
        rstd[i] = r
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - m) * r * weight[j] + bias[j]


@compiled
def _adamw(
    param: Any, m: Any, v: Any, grad: Any, step: Any, b1: Any, b2: Any, eps: Any, decay: Any
) -> None:
    keep = one - step[0] * decay
    for i in prange(param.shape[0]):
        g = grad[i] * step[1]
        m[i] = b1 * m[i] + (one - b1) * g
        v[i] = b2 * v[i] + (one - b2) * g * g
        move = m[i] / step[2] / (math.sqrt(v[i] / step[3]) + eps)
        param[i] = keep * param[i] - step[0] * move


def _prepared(function: Any, *arguments: Any) -> Callable[[], object]:
    """Numbers as float32: a float64 among them would widen the loop."""
    given = [np.float32(x) if isinstance(x, float) else x for x in arguments]
    return lambda: function(*given)


def _whole(function: Any) -> Callable[..., Callable[[], object] | None]:
    def prepare(*arguments: Any) -> Callable[[], object] | None:
        if any(x is None for x in arguments):
            return None
        return _prepared(function, *arguments)

    return prepare


TABLE: dict[str, Callable[..., Callable[[], object] | None]] = {
    "gelu_forward": lambda out, x, approximate: _prepared(
        _gelu_tanh if approximate else _gelu_erf, out, x
    ),
    "silu_forward": _whole(_silu),
    "swiglu_forward": _whole(_swiglu),
    "relu_forward": _whole(_relu),
    "tanh_forward": _whole(_tanh),
    "sigmoid_forward": _whole(_sigmoid),
    "mse_forward": _whole(_mse),
    "rmsnorm_forward": _whole(_rmsnorm),
    "layernorm_forward": _whole(_layernorm),
    "adamw": _whole(_adamw),
}
