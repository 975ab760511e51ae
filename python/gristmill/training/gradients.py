"""Gradients of the shards of a step, added by a fixed tree: `train.shards`.

Within a shard micro-batches add up in order. Shards are added pairwise, neighbours first, so that a
rank that computes the 1st, 2nd, 4th ... part of them holds a whole branch of the tree: the sum has
the same bits on any number of ranks that divides the number of shards, a power of two.
"""

from __future__ import annotations

from gristmill.backend import _C, Array
from gristmill.optim import Optimizer


class ShardSum:
    """Adds shards that are computed one after the other into the gradients of an optimizer.

    At most log2(shards) finished branches wait beside them.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._waiting: list[tuple[int, list[Array]]] = []  # (height, its sums), highest first
        self._spare: list[list[Array]] = []

    def close(self, last: bool) -> None:
        """A shard is complete: what it adds up to is put aside, or left there where it is the last.

        The number of shards is a power of two, so the last one finishes the tree.
        """
        grads = self.optimizer.gradients()
        height = 0
        while self._waiting and self._waiting[-1][0] == height:
            _, branch = self._waiting.pop()
            for grad, waiting in zip(grads, branch, strict=True):
                _C.elementwise(grad, waiting, grad, "add", 0.0)
            self._spare.append(branch)
            height += 1
        if last:
            return
        branch = self._spare.pop() if self._spare else [_C.empty(g.shape) for g in grads]
        for grad, kept in zip(grads, branch, strict=True):
            _C.elementwise(kept, grad, None, "copy", 0.0)
        self._waiting.append((height, branch))
        self.optimizer.zero_grad()
