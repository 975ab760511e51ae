"""Reverse-mode differentiation: each op records one Node; `backward` walks them in reverse order.

A gradient is written where it belongs by the kernel that computes it: a Slot hands out the array
to write to, marked to be added to when something is already there. Parameters' slots lie in one
flat buffer, and a slice of a tensor has a slot inside its base's slot, so no gradient is copied.
"""

from __future__ import annotations

import contextlib
import math
import weakref
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


# shape, strides and offset of a slice of a slot's memory, in elements
Region = tuple[tuple[int, ...], tuple[int, ...], int]


def _apart(a: Region, b: Region) -> bool:
    """Whether two slices surely share no element.

    They share none when their addresses, or the addresses modulo one of the strides (rows, when
    that is the stride of a row), lie in two intervals that do not meet. False may be too careful.
    """
    if 0 in a[0] + b[0]:
        return True
    periods = {2**62} | {stride for stride in a[1] + b[1] if stride > 0}
    for period in periods:
        (first, last), (other, other_last) = _interval(a, period), _interval(b, period)
        if max(last, other_last) < period and (last < other or other_last < first):
            return True
    return False


def _interval(region: Region, period: int) -> tuple[int, int]:
    """First and last address modulo `period`; the last is past the period where it wraps."""
    shape, strides, offset = region
    rest = (d * (n - 1) for n, d in zip(shape, strides, strict=True) if d % period)
    return offset % period, offset % period + sum(rest)


class Slot:
    """Where the gradient of one tensor goes."""

    def __init__(self, shape: Sequence[int], dtype: str, array: Array | None = None) -> None:
        self.shape, self.dtype = tuple(shape), dtype
        self.array = array  # memory, perhaps not yet written
        self.filled = False  # all of it holds a gradient
        self.owned = True  # False: memory another node may still read
        self.ahead: weakref.ref[Ahead] | None = None  # who has put a gradient here before backward
        self.pieces: dict[Region, Array] = {}  # slices written so far, no two of them overlap

    @property
    def region(self) -> tuple[Slot, Region]:
        """The slot that has the memory, and which part of it this is: row-major, all of it."""
        strides = [math.prod(self.shape[i + 1 :]) for i in range(len(self.shape))]
        return self, (self.shape, tuple(strides), 0)

    def out(self) -> Array:
        """The array to write this contribution to; it accumulates when there is an earlier one."""
        array = self.memory()
        self._settle()
        first, self.filled = not self.filled, True
        return array if first else array.accumulating()

    def give(self, array: Array) -> None:
        """Contribute a finished array without copying it when it is the first."""
        first = self.array is None and array.dtype == self.dtype
        if first and array.contiguous and tuple(array.shape) == self.shape:
            self.array, self.filled, self.owned = array.view(array.shape), True, False
        else:
            _C.elementwise(self.out(), array, None, "copy", 0.0)

    def piece(self, region: Region) -> Array:
        """Like `out` for one slice."""
        part = self.memory().view(*region)
        if not self.filled and region not in self.pieces:
            if all(_apart(region, written) for written in self.pieces):
                self.pieces[region] = part
                return part
            self._settle()
        return part.accumulating()

    def memory(self) -> Array:
        """The array itself, whatever it holds, for this slot to write to."""
        if self.ahead is not None:
            self._move_ahead()
        if self.array is None:
            self.array = _C.empty(self.shape, self.dtype)
        elif not self.owned and not self.array.sole:
            shared, self.array = self.array, _C.empty(self.shape, self.dtype)
            _C.elementwise(self.array, shared, None, "copy", 0.0)
        self.owned = True
        return self.array

    def _move_ahead(self) -> None:
        """Somebody writes here before the gradient put ahead counts: it moves out."""
        one = None if self.ahead is None else self.ahead()
        self.ahead = None
        if one is not None:
            lent, one.array = one.array, _C.empty(self.shape, self.dtype)
            _C.elementwise(one.array, lent, None, "copy", 0.0)

    def _settle(self) -> None:
        """Slices nobody wrote are zero."""
        if self.filled or self.array is None or not self.pieces:
            return
        # no two pieces overlap, so their sizes add up to the whole only when they cover it
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
        if not self.owned:
            self.array, self.owned = None, True


class Ahead:
    """A gradient that is computed before `backward`, with the forward pass.

    It lies in the slot's own memory while nothing else is there; another gradient that comes first
    moves it out.
    """

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        taken = slot.filled or slot.pieces or (slot.ahead is not None and slot.ahead() is not None)
        if taken or type(slot) is not Slot:
            self.array = _C.empty(slot.shape, slot.dtype)
        else:
            self.array = slot.memory()
            slot.ahead = weakref.ref(self)

    def give(self) -> None:
        """Let it count."""
        if self.slot.ahead is not None and self.slot.ahead() is self:
            self.slot.ahead, self.slot.filled = None, True
        else:
            self.slot.give(self.array)


class ViewSlot(Slot):
    """The slot of a slice or reshape: it writes into the slot of its base."""

    def __init__(
        self, base: Slot, shape: Sequence[int], strides: Sequence[int], offset: int, whole: bool
    ) -> None:
        super().__init__(shape, base.dtype)
        self.base, self.strides, self.offset, self.whole = base, tuple(strides), offset, whole

    @property
    def region(self) -> tuple[Slot, Region]:
        owner, (_, _, offset) = self.base.region
        return owner, (self.shape, self.strides, offset + self.offset)

    def out(self) -> Array:
        if self.whole:
            array = self.base.out()
            return array.view(self.shape, self.strides, self.offset)
        owner, region = self.region
        return owner.piece(region)

    def give(self, array: Array) -> None:
        _C.elementwise(self.out(), array, None, "copy", 0.0)

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
    """One recorded op: where its inputs come from and their gradients go, how to differentiate it,
    and the slot of its output. It keeps no values: those that `backward` needs, it has itself."""

    __slots__ = ("backward", "below", "slot", "slots")

    def __init__(self, inputs: tuple[Tensor, ...], backward: Backward, slot: Slot) -> None:
        self.below = [t.node for t in inputs if t.node is not None]
        self.slots = [t.slot if t.requires_grad else None for t in inputs]
        self.backward: Backward | None = backward
        self.slot = slot


def _order(root: Node) -> list[Node]:
    """Nodes below root, each after all it depends on (iterative depth-first search)."""
    done: list[Node] = []
    seen = {id(root)}
    stack = [(root, iter(root.below))]
    while stack:
        node, rest = stack[-1]
        for below in rest:
            if id(below) not in seen:
                seen.add(id(below))
                stack.append((below, iter(below.below)))
                break
        else:
            done.append(node)
            stack.pop()
    return done


def _separate(slots: list[Slot | None]) -> list[tuple[Slot, Slot]]:
    """Give an input that overlaps an earlier one a slot of its own; (slot, own) of each.

    A kernel writes the gradients of all its inputs at once, so none may add to another.
    """
    shared, seen = [], list[tuple[Slot, Region]]()
    for i, slot in enumerate(slots):
        if slot is None:
            continue
        owner, region = slot.region
        if any(owner is o and not _apart(region, r) for o, r in seen):
            slots[i] = own = Slot(slot.shape, slot.dtype)
            shared.append((slot, own))
        else:
            seen.append((owner, region))
    return shared


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
        if node.backward is None:
            raise RuntimeError("backward: this graph was already used; compute the loss again")
        dout = node.slot.finish()
        if dout is not None:
            slots = node.slots
            shared = _separate(slots)
            with no_grad():
                node.backward(dout, *slots)
            for slot, own in shared:
                gradient = own.finish()
                if gradient is not None:
                    slot.give(gradient)
        node.backward = None  # frees what was kept for this op
        node.below, node.slots = [], []
        node.slot.array = None
        node.slot.clear()
