"""Bits per byte of a language model over whole documents, by a sliding window.

A document of n ids is predicted from left to right: id i from the end-of-text id that stands before
every document in training and the ids 0..i-1, as far as the context reaches. Windows advance by
`stride`; each id is counted in exactly one of them, the earliest, so all but the first ids of a
document are predicted from at least context - stride others. The closing end-of-text id is
predicted and counted too: the sum is the length of a code that can be decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
LN2 = float(np.log(2.0))
ROWS = 16  # windows per call of the model: enough to fill it, small in memory
IGNORED = -100  # target of a position that another window counts


class Scorer(Protocol):
    """What is needed of a model."""

    def token_losses(
        self, ids: npt.NDArray[np.integer], targets: npt.NDArray[np.integer], /
    ) -> npt.NDArray[np.float32]:
        """ids, targets (B, T) -> nats (B, T), 0 where the target is negative."""
        ...


@dataclass(frozen=True)
class Bits:
    """Code length of documents: `bits` and `bytes`, both (n,)."""

    bits: npt.NDArray[np.float64]
    bytes: npt.NDArray[np.int64]

    @property
    def per_byte(self) -> float:
        """Bits of all documents over bytes of all documents; raises ValueError without bytes."""
        if not self.bytes.sum():
            raise ValueError("bits per byte of no bytes")
        return float(self.bits.sum() / self.bytes.sum())


@dataclass(frozen=True)
class Window:
    """ids[start:stop] of a document's inputs, counting targets from `count` on."""

    document: int
    start: int
    stop: int
    count: int


def windows(document: int, length: int, context: int, stride: int) -> Iterator[Window]:
    """Yield windows of at most `context` that count each of `length` targets exactly once."""
    if not 1 <= stride <= context:
        raise ValueError(f"stride {stride} given, allowed are 1 to the context, {context}")
    stop = min(context, length)
    yield Window(document, 0, stop, 0)
    while stop < length:
        counted, stop = stop, min(stop + stride, length)
        yield Window(document, stop - context, stop, counted)


def bits_per_byte(
    model: Scorer,
    documents: Sequence[npt.NDArray[np.integer]],
    byte_lengths: npt.NDArray[np.integer],
    *,
    context: int,
    stride: int,
    counts: Sequence[npt.NDArray[np.bool_]] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Bits:
    """Return bits and bytes of every document; each ends with the end-of-text id.

    byte_lengths (V,): bytes of each id, 0 for special ones. context: ids the model sees at once.
    counts: per document which of its ids are measured, given all before them; None: all.
    progress is told the share that is done. Raises ValueError for an empty document or a stride
    that leaves gaps. The result does not depend on how windows are batched.
    """
    bits = np.zeros(len(documents))
    rows = [
        window
        for number, ids in enumerate(documents)
        for window in windows(number, _length(ids), context, stride)
    ]
    # short windows together: a batch is as wide as its longest
    rows.sort(key=lambda w: (w.start - w.stop, w.document, w.start))
    for first in range(0, len(rows), ROWS):
        batch = rows[first : first + ROWS]
        inputs, targets = _fill(documents, batch, counts)
        losses = model.token_losses(inputs, targets).astype(np.float64)
        for window, loss in zip(batch, losses, strict=True):
            bits[window.document] += loss.sum() / LN2
        if progress is not None:
            progress((first + len(batch)) / len(rows))
    if counts is not None:
        documents = [ids[own] for ids, own in zip(documents, counts, strict=True)]
    sizes = [int(byte_lengths[ids].sum()) for ids in documents]
    return Bits(bits, np.array(sizes, np.int64))


def _length(ids: npt.NDArray[np.integer]) -> int:
    if len(ids) == 0:
        raise ValueError("a document without ids; every document ends with end-of-text")
    return len(ids)


def _fill(
    documents: Sequence[npt.NDArray[np.integer]],
    batch: Sequence[Window],
    counts: Sequence[npt.NDArray[np.bool_]] | None,
) -> tuple[Ids, Ids]:
    """Return inputs and targets (B, T) of some windows; what is not counted is IGNORED."""
    width = max(window.stop - window.start for window in batch)
    inputs = np.zeros((len(batch), width), np.int32)
    targets = np.full((len(batch), width), IGNORED, np.int32)
    for row, window in enumerate(batch):
        ids = documents[window.document]
        shifted = np.concatenate([ids[-1:], ids[:-1]])  # the end-of-text id goes in front
        inputs[row, : window.stop - window.start] = shifted[window.start : window.stop]
        inner = slice(window.count - window.start, window.stop - window.start)
        targets[row, inner] = ids[window.count : window.stop]
        if counts is not None:
            own = counts[window.document][window.count : window.stop]
            targets[row, inner][~own] = IGNORED
    return inputs, targets
