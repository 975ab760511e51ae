"""Arithmetic and functions element by element, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record
from gristmill.autograd import Backward, Slot
from gristmill.backend import _C, Array
from gristmill.ops.reduce import sum_dim

Floats = npt.NDArray[np.float64]

_UNARY: dict[str, Callable[[Floats], Floats]] = {
    "copy": lambda a: a.copy(),
    "neg": lambda a: -a,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
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
    """The twin: one operand for copy, neg, exp, log, sqrt, square; two, which broadcast, for add,
    sub, mul, div, maximum."""
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


def _compute(op: str, a: Array, b: Array | float = 0.0) -> Array:
    """op(a, b) as a new contiguous array; b is an array of the same shape, or a number."""
    out = _C.empty(a.shape, a.dtype)
    if isinstance(b, Array):
        _C.elementwise(out, a, b, op, 0.0)
    else:
        _C.elementwise(out, a, None, op, b)
    return out


def _step(a: Array) -> Array:
    """1 where a > 0, else 0: the positive part, blown up past 1 and cut there."""
    big = _compute("mul", _compute("mul", _compute("maximum", a, 0.0), 3e38), 3e38)
    return _compute("neg", _compute("maximum", _compute("neg", big), -1.0))


# gradient from (dout, a, y = op(a))
_BACKWARD: dict[str, Callable[[Array, Array, Array], Array]] = {
    "neg": lambda d, a, y: _compute("neg", d),
    "exp": lambda d, a, y: _compute("mul", d, y),
    "log": lambda d, a, y: _compute("div", d, a),
    "sqrt": lambda d, a, y: _compute("div", _compute("mul", d, 0.5), y),
    "square": lambda d, a, y: _compute("mul", _compute("mul", d, 2.0), a),
}


def unary(x: Tensor, op: str) -> Tensor:
    """One of neg, exp, log, sqrt, square; float32 or bfloat16."""
    out = _compute(op, x.array)

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is not None:
            dx.give(_BACKWARD[op](dout, x.array, out))

    return record(out, (x,), backward)


def copy(x: Tensor) -> Tensor:
    """The same values in contiguous memory."""
    return convert(x, x.dtype)


def convert(x: Tensor, dtype: str) -> Tensor:
    """The same values as another dtype: rounded to nearest even, integers cut towards zero."""
    out = _C.empty(x.shape, dtype)
    _C.elementwise(out, x.array, None, "copy", 0.0)

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is not None:
            dx.give(dout)

    return record(out, (x,), backward)


def _spread(a: Array, shape: tuple[int, ...]) -> Array:
    """`a` seen in a larger shape: stride 0 where it repeats."""
    missing = len(shape) - len(a.shape)
    sizes, strides = (1,) * missing + tuple(a.shape), (0,) * missing + tuple(a.strides)
    stretched = [0 if size == 1 else stride for size, stride in zip(sizes, strides, strict=True)]
    return a.view(shape, stretched, 0)


def _give(slot: Slot | None, gradient: Array) -> None:
    """Contribute `gradient` to a slot of a smaller shape: what was repeated is summed."""
    if slot is None:
        return
    missing = len(gradient.shape) - len(slot.shape)
    for dim, size in enumerate((1,) * missing + slot.shape):
        if size == 1 and gradient.shape[dim] != 1:
            gradient = sum_dim(gradient, dim)
    if missing:
        sizes = slot.shape
        gradient = gradient.view(sizes, gradient.strides[missing:], 0)
    slot.give(gradient)


def _pair(op: str, d: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Gradients of op(a, b); where a == b, maximum gives half to each, as PyTorch does."""
    if op == "mul":
        return _compute("mul", d, b), _compute("mul", d, a)
    if op == "div":
        da = _compute("div", d, b)
        return da, _compute("neg", _compute("mul", da, _compute("div", a, b)))
    above, below = _step(_compute("sub", a, b)), _step(_compute("sub", b, a))
    to_a = _compute("mul", _compute("add", _compute("sub", above, below), 1.0), 0.5)
    da = _compute("mul", d, to_a)
    return da, _compute("sub", d, da)


def binary(x: Tensor, other: Tensor | float, op: str) -> Tensor:
    """One of add, sub, mul, div, maximum with NumPy's broadcasting, or with a number.

    Raises TypeError when dtypes differ, ValueError when shapes do not broadcast.
    """
    if not isinstance(other, Tensor):
        return _with_number(x, float(other), op)
    if x.dtype != other.dtype:
        raise TypeError(f"{op}: dtypes {x.dtype} and {other.dtype} differ; convert one with .to()")
    try:
        shape = np.broadcast_shapes(x.shape, other.shape)
    except ValueError:
        raise ValueError(f"{op}: shapes {x.shape} and {other.shape} do not broadcast") from None
    a, b = _spread(x.array, shape), _spread(other.array, shape)
    out = _compute(op, a, b)
    if op in ("add", "sub"):
        return record(out, (x, other), _sum_backward(op))

    def backward(dout: Array, dx: Slot | None, dother: Slot | None) -> None:
        da, db = _pair(op, dout, a, b)
        _give(dx, da)
        _give(dother, db)

    return record(out, (x, other), backward)


def _sum_backward(op: str) -> Backward:
    """Of add or sub: it needs no operand, and so keeps none alive."""

    def backward(dout: Array, dx: Slot | None, dother: Slot | None) -> None:
        _give(dx, dout)
        if dother is not None:
            _give(dother, dout if op == "add" else _compute("neg", dout))

    return backward


def _with_number(x: Tensor, number: float, op: str) -> Tensor:
    out = _compute(op, x.array, number)

    def backward(dout: Array, dx: Slot | None) -> None:
        if dx is None:
            return
        if op in ("mul", "div"):
            dx.give(_compute(op, dout, number))
        elif op == "maximum":
            dx.give(_compute("mul", dout, _step(_compute("sub", x.array, number))))
        else:
            dx.give(dout)

    return record(out, (x,), backward)
