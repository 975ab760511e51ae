"""Tensor: an array of the extension, and where its gradient goes. PyTorch's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill import autograd
from gristmill.autograd import Backward, Node, Slot, ViewSlot
from gristmill.backend import _C, Array

DTYPES = ("float32", "bfloat16", "int32", "int64", "uint8")


class Tensor:
    """An n-dimensional array with automatic differentiation."""

    __slots__ = ("__weakref__", "_slot", "again", "array", "node", "requires_grad", "version")

    def __init__(self, array: Array, requires_grad: bool = False) -> None:
        self.array = array
        self.requires_grad = requires_grad
        self.node: Node | None = None
        self.version = 0
        self._slot: Slot | None = None
        self.again: Callable[[], Array] | None = None  # computes the values anew, for less memory

    # ---------------------------------------------------------------- what it is
    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(self.array.strides)

    @property
    def dtype(self) -> str:
        return str(self.array.dtype)

    @property
    def ndim(self) -> int:
        return len(self.array.shape)

    @property
    def size(self) -> int:
        return int(self.array.size)

    @property
    def slot(self) -> Slot:
        """Where its gradient goes."""
        if self._slot is None:
            self._slot = Slot(self.shape, self.dtype)
        return self._slot

    @property
    def grad(self) -> Tensor | None:
        """The gradient of a leaf after `backward`, or None."""
        array = None if self._slot is None or self.node is not None else self._slot.finish()
        return None if array is None else Tensor(array)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"gm.tensor({self.numpy()}, dtype={self.dtype}{grad})"

    # ---------------------------------------------------------------- to the outside
    def numpy(self) -> npt.NDArray[Any]:
        """The same memory as a NumPy array, without copy; bfloat16 must be widened first."""
        if self.dtype == "bfloat16":
            raise TypeError("NumPy has no bfloat16; call .float() first")
        return np.asarray(self.array.numpy())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        plain = self.numpy()
        if dtype is not None and np.dtype(dtype) != plain.dtype:
            return plain.astype(dtype)
        return plain.copy() if copy else plain

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def item(self) -> float:
        """The only element as a Python number, an int where the dtype has integers."""
        if self.size != 1:
            raise ValueError(f"item: shape {self.shape} has {self.size} elements, not one")
        plain = self.float() if self.dtype == "bfloat16" else self
        return plain.numpy().reshape(-1)[0].item()  # type: ignore[no-any-return]

    # ---------------------------------------------------------------- gradients
    def backward(self, gradient: Tensor | None = None) -> None:
        """Differentiate with respect to every leaf that requires a gradient."""
        autograd.run_backward(self, None if gradient is None else gradient.array)

    def detach(self) -> Tensor:
        """The same memory without history."""
        return Tensor(self.array)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        if self._slot is not None:
            self._slot.clear()

    # ---------------------------------------------------------------- views
    def _view(
        self, shape: Sequence[int], strides: Sequence[int], offset: int, whole: bool
    ) -> Tensor:
        if self.requires_grad and type(self.slot) is Slot and not self.is_contiguous():
            raise ValueError(
                f"a view of a leaf with strides {self.strides} of shape {self.shape} has no "
                "gradient: a leaf's gradient is contiguous; call .contiguous() on the data "
                "before requires_grad"
            )
        out = Tensor(self.array.view(tuple(shape), tuple(strides), offset), self.requires_grad)
        out.node = self.node
        if self.requires_grad:
            out._slot = ViewSlot(self.slot, shape, strides, offset, whole)
        return out

    def is_contiguous(self) -> bool:
        """Whether elements lie in row-major order without gaps."""
        return bool(self.array.contiguous)

    def contiguous(self) -> Tensor:
        """Itself, or a row-major copy."""
        if self.is_contiguous():
            return self
        from gristmill.ops.elementwise import copy

        return copy(self)

    def reshape(self, *shape: int) -> Tensor:
        """The same elements in another shape; -1 is inferred. Needs contiguous memory."""
        sizes = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        known = int(np.prod([s for s in sizes if s != -1]))
        if sizes.count(-1) == 1 and known and self.size % known == 0:
            sizes[sizes.index(-1)] = self.size // known
        if int(np.prod(sizes)) != self.size or min(sizes, default=0) < 0:
            raise ValueError(f"reshape: shape {self.shape} does not fit {tuple(shape)}")
        if not self.is_contiguous():
            raise ValueError(f"reshape: strides {self.strides} have gaps; call .contiguous() first")
        strides = [int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))]
        return self._view(sizes, strides, 0, whole=True)

    view = reshape

    def transpose(self, a: int, b: int) -> Tensor:
        """Dimensions a and b exchanged, without copy."""
        shape, strides = list(self.shape), list(self.strides)
        shape[a], shape[b] = shape[b], shape[a]
        strides[a], strides[b] = strides[b], strides[a]
        return self._view(shape, strides, 0, whole=True)

    @property
    def T(self) -> Tensor:
        return self.transpose(-1, -2)

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """`length` indices from `start` of one dimension, without copy."""
        if not 0 <= start <= start + length <= self.shape[dim]:
            raise ValueError(
                f"narrow: {start}..{start + length} leaves dimension {dim} of shape {self.shape}"
            )
        shape = list(self.shape)
        shape[dim] = length
        return self._view(shape, self.strides, start * self.strides[dim], whole=False)

    def split(self, sizes: Sequence[int], dim: int = -1) -> list[Tensor]:
        """Adjacent slices of one dimension, without copy."""
        if sum(sizes) != self.shape[dim]:
            raise ValueError(f"split: sizes {list(sizes)} do not add up to {self.shape[dim]}")
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return [self.narrow(dim, s, n) for s, n in zip(starts, sizes, strict=True)]

    def heads(self, n: int) -> Tensor:
        """(B, T, n * D) -> (B, T, n, D) without copy; the last stride must be 1."""
        b, t, c = self.shape
        s = self.strides
        if s[2] != 1 or c % n:
            raise ValueError(
                f"heads: {n} heads of shape {self.shape} with strides {s}; the last dimension "
                "must be a multiple of it with stride 1"
            )
        whole = self.is_contiguous()
        return self._view((b, t, n, c // n), (s[0], s[1], c // n, 1), 0, whole)

    # ---------------------------------------------------------------- arithmetic
    def _binary(self, other: Tensor | float, op: str) -> Tensor:
        from gristmill.ops import elementwise

        return elementwise.binary(self, other, op)

    def _unary(self, op: str) -> Tensor:
        from gristmill.ops import elementwise

        return elementwise.unary(self, op)

    def __add__(self, other: Tensor | float) -> Tensor:
        return self._binary(other, "add")

    __radd__ = __add__

    def __sub__(self, other: Tensor | float) -> Tensor:
        return self._binary(other, "sub")

    def __rsub__(self, other: float) -> Tensor:
        return (-self)._binary(other, "add")

    def __mul__(self, other: Tensor | float) -> Tensor:
        return self._binary(other, "mul")

    __rmul__ = __mul__

    def __truediv__(self, other: Tensor | float) -> Tensor:
        return self._binary(other, "div")

    def __neg__(self) -> Tensor:
        return self._unary("neg")

    def exp(self) -> Tensor:
        return self._unary("exp")

    def log(self) -> Tensor:
        return self._unary("log")

    def sqrt(self) -> Tensor:
        return self._unary("sqrt")

    def tanh(self) -> Tensor:
        from gristmill.ops.tanh import tanh

        return tanh(self)

    def sigmoid(self) -> Tensor:
        from gristmill.ops.sigmoid import sigmoid

        return sigmoid(self)

    def relu(self) -> Tensor:
        from gristmill.ops.relu import relu

        return relu(self)

    def square(self) -> Tensor:
        return self._unary("square")

    def softmax(self, dim: int = -1) -> Tensor:
        """exp(x) / sum(exp(x)) over the last dimension (ops.softmax)."""
        from gristmill.ops.softmax import softmax

        return softmax(self, dim)

    def __matmul__(self, other: Tensor) -> Tensor:
        from gristmill.ops.matmul import matmul

        return matmul(self, other)

    def sum(self) -> Tensor:
        """The sum of all elements, a tensor of shape (1,)."""
        from gristmill.ops.reduce import total

        return total(self)

    def mean(self) -> Tensor:
        """The mean of all elements, a tensor of shape (1,)."""
        return self.sum() * (1.0 / self.size)

    def to(self, dtype: str) -> Tensor:
        """Converted (a copy), or itself when it has that dtype."""
        from gristmill.ops.elementwise import convert

        return self if dtype == self.dtype else convert(self, dtype)

    def float(self) -> Tensor:
        return self.to("float32")

    def bfloat16(self) -> Tensor:
        return self.to("bfloat16")


class Parameter(Tensor):
    """A leaf a model learns. `.numpy()` is read-only; write through `copy_`."""

    __slots__ = ()

    def __init__(self, array: Array) -> None:
        super().__init__(array, requires_grad=True)

    def numpy(self) -> npt.NDArray[Any]:
        return np.asarray(self.array.frozen().numpy())

    def copy_(self, source: Tensor | npt.ArrayLike) -> Parameter:
        """Overwrite the values; shapes must be equal."""
        values = np.asarray(source, dtype=np.float32)
        if values.shape != self.shape:
            raise ValueError(f"copy_: shape {values.shape} given, this parameter has {self.shape}")
        self.array.numpy()[...] = values
        self.version += 1
        return self

    def rehome(self, array: Array, gradient: Array) -> None:
        """Move values into `array` (part of a flat buffer) and gradients to `gradient`."""
        _C.elementwise(array, self.array, None, "copy", 0.0)
        self.array = array
        self._slot = Slot(self.shape, self.dtype, gradient)


class Adjacent(Slot):
    """The slot of parameters that lie side by side and are used as one matrix."""

    def __init__(self, members: Sequence[Parameter], shape: Sequence[int]) -> None:
        super().__init__(shape, "float32")
        self.members = members

    def out(self) -> Array:
        first = self.members[0].slot.array
        assert first is not None
        for m in self.members:
            m.slot.memory()  # moves out what was put there ahead
        filled = [m.slot.finish() is not None for m in self.members]
        for m in self.members:
            if any(filled) and not m.slot.filled:
                autograd.fill(m.slot.out(), 0.0)
            m.slot.filled = True
        span = _C.span(first, self.shape)
        return span.accumulating() if any(filled) else span

    def give(self, array: Array) -> None:
        _C.elementwise(self.out(), array, None, "copy", 0.0)


def adjacent(members: Sequence[Parameter]) -> Tensor | None:
    """Matrices (n_i, k) that follow each other in memory as one (sum n_i, k), or None."""
    frozen = not any(m.requires_grad for m in members)
    end = None
    for m in members:
        grad = None if frozen else m.slot.array
        if not frozen and (grad is None or not m.requires_grad):
            return None
        start = m.array.data_ptr, grad.data_ptr if grad else 0
        if end not in (None, start):
            return None
        end = start[0] + m.array.nbytes, grad.data_ptr + m.array.nbytes if grad else 0
    shape = (sum(m.shape[0] for m in members), members[0].shape[1])
    out = Tensor(_C.span(members[0].array, shape), not frozen)
    if not frozen:
        out._slot = Adjacent(members, shape)
    return out


def record(array: Array, inputs: tuple[Tensor, ...], backward: Backward) -> Tensor:
    """The result of an op: with a node when a gradient is wanted."""
    out = Tensor(array)
    if autograd.is_grad_enabled() and any(t.requires_grad for t in inputs):
        out.requires_grad = True
        out.node = Node(inputs, backward, out.slot)
    return out


def cheap(out: Tensor, again: Callable[[], Array]) -> Tensor:
    """The result of an op whose values backward passes compute anew by `again`, not keep."""
    out.again = None if out.node is None else again
    return out


def kept(x: Tensor) -> Callable[[], Array]:
    """What a backward pass calls for the values of x: those kept, or computed again where the op
    that made x says that this is cheap."""
    array = x.array
    return x.again or (lambda: array)


def rows(array: Array) -> Array:
    """(..., cols) as (rows, cols) without copy; leading dimensions must collapse."""
    shape, strides = tuple(array.shape), tuple(array.strides)
    if len(shape) == 2:
        return array
    if len(shape) < 2:
        return array.view((1, array.size), (array.size, *strides)[:2] if shape else (1, 1), 0)
    n, step = 1, strides[-2]
    for size, stride in zip(shape[-2::-1], strides[-2::-1], strict=True):
        if size != 1 and stride != step * n:
            raise ValueError(f"strides {strides} of shape {shape} have gaps; call .contiguous()")
        n *= size
    return array.view((n, shape[-1]), (step, strides[-1]), 0)


def tensor(data: npt.ArrayLike, dtype: str | None = None, requires_grad: bool = False) -> Tensor:
    """A copy of `data`. Python floats become float32, integers int64, as in PyTorch."""
    source = np.asarray(data)
    if dtype is None:
        if source.dtype == np.float64 and not isinstance(data, np.ndarray):
            source = source.astype(np.float32)
        dtype = str(source.dtype)
    if dtype == "bfloat16":
        out = from_numpy(np.array(source, dtype=np.float32)).bfloat16()
    elif dtype in DTYPES:
        out = from_numpy(np.array(source, dtype=dtype, order="C"))
    else:
        raise TypeError(f"tensor: dtype {dtype} is not one of {', '.join(DTYPES)}; convert first")
    out.requires_grad = requires_grad
    return out


def from_numpy(array: npt.NDArray[Any]) -> Tensor:
    """A tensor on the memory of `array`, without copy."""
    return Tensor(_C.from_numpy(array))


def from_dlpack(source: Any) -> Tensor:
    """A tensor on the memory of any CPU array that speaks DLPack, without copy."""
    return from_numpy(np.from_dlpack(source))


def empty(*shape: int, dtype: str = "float32") -> Tensor:
    """Uninitialised."""
    return Tensor(_C.empty(tuple(shape), dtype))


def zeros(*shape: int, dtype: str = "float32", requires_grad: bool = False) -> Tensor:
    """All zero."""
    out = Tensor(_C.empty(tuple(shape), dtype), requires_grad)
    autograd.fill(out.array, 0.0)
    return out
