"""Reverse-mode differentiation: each op records one Node; `backward` walks them in reverse order.

A gradient is written where it belongs by the kernel that computes it: a Slot hands out the array
to write to, marked to be added to when something is already there. Parameters' slots lie in one
flat buffer, and a slice of a tensor has a slot inside its base's slot, so no gradient is copied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from gristmill.backend import _C, Array

if TYPE_CHECKING:
    from gristmill._tensor import Tensor

_enabled = True


def is_grad_enabled() -> bool:
    """Whether ops record what backward needs."""
    return _enabled


@contextlib.contextmanager
def _grad_mode(on: bool) -> Iterator[None]:
    global _enabled
    before, _enabled = _enabled, on
    try:
        yield
    finally:
        _enabled = before


def no_grad() -> contextlib.AbstractContextManager[None]:
    """Context in which ops record nothing."""
    return _grad_mode(False)


def enable_grad() -> contextlib.AbstractContextManager[None]:
    """Context in which ops record again, inside `no_grad`."""
    return _grad_mode(True)


class Slot:
    """Where the gradient of one tensor goes."""

    def __init__(self, shape: Sequence[int], dtype: str, array: Array | None = None) -> None:
        self.shape, self.dtype = tuple(shape), dtype
        self.array = array  # memory, perhaps not yet written
        self.filled = False  # all of it holds a gradient
        self.owned = True  # False: memory another node may still read
        self.pieces: dict[int, Array] = {}  # slices written so far, by offset

    def out(self) -> Array:
        """The array to write this contribution to; it accumulates when there is an earlier one."""
        self._settle()
        if not self.owned and self.array is not None:
            shared, self.array, self.owned = self.array, _C.empty(self.shape, self.dtype), True
            _C.elementwise(self.array, shared, None, "copy", 0.0)
        if self.array is None:
            self.array = _C.empty(self.shape, self.dtype)
        first, self.filled = not self.filled, True
        return self.array if first else self.array.accumulating()

    def give(self, array: Array) -> None:
        """Contribute a finished array without copying it when it is the first."""
        if self.array is None and not self.pieces and array.dtype == self.dtype:
            self.array, self.filled, self.owned = array, True, False
        else:
            _C.elementwise(self.out(), array, None, "copy", 0.0)

    def piece(self, shape: Sequence[int], strides: Sequence[int], offset: int) -> Array:
        """Like `out` for one slice; slices of a tensor do not overlap."""
        if self.filled or offset in self.pieces:
            return self._whole().view(shape, strides, offset).accumulating()
        part = self._whole().view(shape, strides, offset)
        self.pieces[offset] = part
        return part

    def _whole(self) -> Array:
        if self.array is None:
            self.array = _C.empty(self.shape, self.dtype)
        elif not self.owned:
            self.out()
        return self.array

    def _settle(self) -> None:
        """Slices nobody wrote are zero."""
        if self.filled or self.array is None or not self.pieces:
            return
        written = sum(p.size for p in self.pieces.values())
        if written != self.array.size:
            keep = [(p, _C.empty(p.shape, p.dtype)) for p in self.pieces.values()]
            for part, copy in keep:
                _C.elementwise(copy, part, None, "copy", 0.0)
            fill(self.array, 0.0)
            for part, copy in keep:
                _C.elementwise(part, copy, None, "copy", 0.0)
        self.pieces = {}
        self.filled = True

    def finish(self) -> Array | None:
        """The gradient, or None when nothing flowed here."""
        self._settle()
        return self.array if self.filled else None

    def clear(self) -> None:
        """Forget the values; a parameter's memory stays for the next step."""
        self.filled, self.pieces = False, {}


class ViewSlot(Slot):
    """The slot of a slice or reshape: it writes into the slot of its base."""

    def __init__(
        self, base: Slot, shape: Sequence[int], strides: Sequence[int], offset: int, whole: bool
    ) -> None:
        super().__init__(shape, base.dtype)
        self.base, self.strides, self.offset, self.whole = base, tuple(strides), offset, whole

    def out(self) -> Array:
        if self.whole:
            array = self.base.out()
            return array.view(self.shape, self.strides, self.offset)
        return self.base.piece(self.shape, self.strides, self.offset)

    def give(self, array: Array) -> None:
        _C.elementwise(self.out(), array, None, "copy", 0.0)

    def piece(self, shape: Sequence[int], strides: Sequence[int], offset: int) -> Array:
        return self.base.piece(shape, strides, self.offset + offset)

    def finish(self) -> Array | None:
        array = self.base.finish()
        return None if array is None else array.view(self.shape, self.strides, self.offset)


def fill(array: Array, value: float) -> None:
    """Set every element."""
    zero = _C.empty((1,), "float32")
    zero.numpy()[0] = value
    _C.elementwise(array, zero.view(array.shape, (0,) * len(array.shape), 0), None, "copy", 0.0)


# backward(dout, *slots): slots[i] is None where input i needs no gradient
Backward = Callable[..., None]


class Node:
    """One recorded op: its inputs, how to differentiate it, and the slot of its output."""

    __slots__ = ("backward", "inputs", "slot")

    def __init__(self, inputs: tuple[Tensor, ...], backward: Backward, slot: Slot) -> None:
        self.inputs: tuple[Tensor, ...] | None = inputs
        self.backward: Backward | None = backward
        self.slot = slot


def _order(root: Node) -> list[Node]:
    """Nodes below root, each after all it depends on (iterative depth-first search)."""
    done: list[Node] = []
    seen = {id(root)}
    stack = [(root, iter(root.inputs or ()))]
    while stack:
        node, rest = stack[-1]
        for tensor in rest:
            below = tensor.node
            if below is not None and id(below) not in seen:
                seen.add(id(below))
                stack.append((below, iter(below.inputs or ())))
                break
        else:
            done.append(node)
            stack.pop()
    return done


def run_backward(tensor: Tensor, gradient: Array | None = None) -> None:
    """Fill the slots of every leaf that `tensor` depends on. `gradient` defaults to one."""
    if tensor.node is None:
        raise RuntimeError(
            "backward: this tensor was not computed from one that requires a gradient "
            "(or under no_grad)"
        )
    if gradient is None:
        if tensor.size != 1:
            raise RuntimeError(
                f"backward: shape {tensor.shape} is not a single number; call .sum() or .mean() "
                "first, or pass a gradient of that shape"
            )
        fill(tensor.slot.out(), 1.0)
    else:
        tensor.slot.give(gradient)
    for node in reversed(_order(tensor.node)):
        if node.backward is None or node.inputs is None:
            raise RuntimeError("backward: this graph was already used; compute the loss again")
        dout = node.slot.finish()
        if dout is not None:
            slots = [t.slot if t.requires_grad else None for t in node.inputs]
            with no_grad():
                node.backward(dout, *slots)
        node.inputs = node.backward = None  # frees what was kept for this op
        node.slot.array = None
        node.slot.clear()
