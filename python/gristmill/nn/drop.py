"""Dropout of a training pass. Srivastava et al., JMLR 2014; where GPT-2 has it, but not on the
probabilities of attention, which the kernel never holds as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gristmill._tensor import Tensor
from gristmill.ops.dropout import dropout

PLACES = 1 << 20  # masks that one pass may draw


class Drop:
    """Masks as a pure function of (seed, number of the pass, place in it); off outside `on`.

    So a resumed training draws what the uninterrupted one drew, and a block that is run again in
    the backward pass (recomputation) draws what it drew: it goes back to the `place` it began at.
    """

    def __init__(self) -> None:
        self.p, self.seed, self.number, self.place = 0.0, 0, 0, 0
        self.active = False  # inside `on`, whatever p is

    @contextmanager
    def on(self, p: float, seed: int, number: int) -> Iterator[None]:
        """Zero elements with probability p in pass `number`, 0 <= p < 1, forward and backward."""
        self.p, self.seed, self.number, self.place = p, seed, number, 0
        self.active = True
        try:
            yield
        finally:
            self.p, self.active = 0.0, False

    def __call__(self, x: Tensor) -> Tensor:
        """x, with the next mask of this pass where dropout is on."""
        return self.masked(x, self.p)

    def masked(self, x: Tensor, p: float) -> Tensor:
        """The same with a probability of its own."""
        if p == 0.0 or not self.active:
            return x
        self.place += 1
        return dropout(x, p, self.seed, self.number * PLACES + self.place)
