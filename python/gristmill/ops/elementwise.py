"""Arithmetic and functions element by element, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_UNARY: dict[str, Callable[[Floats], Floats]] = {
    "copy": lambda a: a.copy(),
    "neg": lambda a: -a,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "relu": lambda a: np.maximum(a, 0),
    "square": lambda a: a * a,
}
_BINARY: dict[str, Callable[[Floats, Floats], Floats]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "maximum": np.maximum,
}
# d op / da at (a, y = op(a))
_SLOPE: dict[str, Callable[[Floats, Floats], Floats]] = {
    "copy": lambda a, y: np.ones_like(a),
    "neg": lambda a, y: -np.ones_like(a),
    "exp": lambda a, y: y,
    "log": lambda a, y: 1 / a,
    "sqrt": lambda a, y: 0.5 / y,
    "tanh": lambda a, y: 1 - y * y,
    "sigmoid": lambda a, y: y * (1 - y),
    "relu": lambda a, y: (a > 0).astype(a.dtype),
    "square": lambda a, y: 2 * a,
}
# (d op / da, d op / db); where a == b maximum gives half to each, as PyTorch does
_SLOPES: dict[str, Callable[[Floats, Floats], tuple[Floats, Floats]]] = {
    "add": lambda a, b: (np.ones_like(a), np.ones_like(b)),
    "sub": lambda a, b: (np.ones_like(a), -np.ones_like(b)),
    "mul": lambda a, b: (b, a),
    "div": lambda a, b: (1 / b, -a / (b * b)),
    "maximum": lambda a, b: ((a > b) + 0.5 * (a == b), (a < b) + 0.5 * (a == b)),
}


def reference_forward(op: str, a: Floats, b: Floats | None = None) -> Floats:
    """The twin: one operand for copy, neg, exp, log, sqrt, tanh, sigmoid, relu, square; two, which
    broadcast, for add, sub, mul, div, maximum."""
    return _UNARY[op](a) if b is None else _BINARY[op](a, b)


def reference_backward(
    dout: Floats, op: str, a: Floats, b: Floats | None = None
) -> tuple[Floats, ...]:
    """(da,) or (da, db), in the operands' own shapes: what was broadcast is summed."""
    if b is None:
        return (dout * _SLOPE[op](a, _UNARY[op](a)),)
    da, db = _SLOPES[op](*np.broadcast_arrays(a, b))
    return _unbroadcast(dout * da, a.shape), _unbroadcast(dout * db, b.shape)


def _unbroadcast(gradient: Floats, shape: tuple[int, ...]) -> Floats:
    extra = gradient.ndim - len(shape)
    axes = tuple(i for i in range(gradient.ndim) if i < extra or shape[i - extra] == 1)
    out: Floats = gradient.sum(axis=axes, keepdims=True).reshape(shape)
    return out
