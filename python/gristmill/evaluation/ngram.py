"""Byte n-gram model: the baseline every language model here has to beat.

Interpolated Witten-Bell smoothing (Witten and Bell 1991, method C; Chen and Goodman 1999, section
2.6): with N(h) occurrences of a context h in the training text, T(h) distinct bytes after it,

    P(c | h) = (N(hc) + T(h) P(c | h')) / (N(h) + T(h)),    h' = h without its oldest byte,

and P = 1/256 below the empty context. A context and its next byte fit into 64 bits, so tables are
sorted arrays of exact keys: no hashing, no collisions, no loop over bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.evaluation.bits import Bits

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]
ORDER = 6  # bytes of the longest n-gram, the predicted one included
MOST = 7  # of context: with the next byte it fills 64 bits


@dataclass(frozen=True)
class Table:
    """Counts of one context length: sorted keys (context, then what follows), sorted contexts."""

    keys: U64
    counts: npt.NDArray[np.int64]  # N(hc)
    contexts: U64
    totals: npt.NDArray[np.int64]  # N(h)
    kinds: npt.NDArray[np.int64]  # T(h)


class NGram:
    """Counts of every order of a training text."""

    def __init__(self, documents: Sequence[bytes], order: int = ORDER) -> None:
        """Count `documents`; order is 1 to 8. Raises ValueError for another or for no bytes."""
        if not 1 <= order <= MOST + 1:
            raise ValueError(f"n-gram order {order} given, allowed are 1 to {MOST + 1}")
        text, real = _join(documents)
        if not real.any():
            raise ValueError("an n-gram model needs at least one byte to count")
        self.order = order
        self.tables = [count_keys(_keys(text, length)[real], 8) for length in range(order)]

    def bits(
        self, documents: Sequence[bytes], counts: Sequence[npt.NDArray[np.bool_]] | None = None
    ) -> Bits:
        """Return the code length of each document; they do not see one another.

        counts: per document which of its bytes are measured, given all before them; None: all.
        """
        text, real = _join(documents)
        probability = np.full(int(real.sum()), 1.0 / 256.0)
        for length, table in enumerate(self.tables):
            probability = _interpolate(table, _keys(text, length)[real], probability)
        sizes = np.array([len(d) for d in documents], np.int64)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        bits = -np.log2(probability)
        if counts is not None:
            bits *= np.concatenate(counts)
            sizes = np.array([int(own.sum()) for own in counts], np.int64)
        sums = np.concatenate([[0.0], np.cumsum(bits)])
        return Bits(sums[ends[1:]] - sums[ends[:-1]], sizes)


def _join(documents: Sequence[bytes]) -> tuple[U8, npt.NDArray[np.bool_]]:
    """Return all bytes, each document behind MOST zero bytes, and which of them are real."""
    pad = bytes(MOST)
    text = np.frombuffer(b"".join(pad + d for d in documents), np.uint8)
    real = np.ones(len(text), np.bool_)
    starts = np.cumsum([0, *(MOST + len(d) for d in documents)])[:-1]
    for offset in range(MOST):
        real[starts + offset] = False
    return text, real


def _keys(text: U8, length: int) -> U64:
    """Return per position its byte and the `length` bytes before it, as one number."""
    keys = text.astype(np.uint64)
    wide = keys.copy()
    for back in range(1, length + 1):
        keys[back:] |= wide[:-back] << np.uint64(8 * back)
    return keys


def count_keys(keys: U64, width: int) -> Table:
    """Count keys whose low `width` bits follow the context in the bits above; sorts `keys`."""
    keys.sort()
    unique, counts = _runs(keys)
    contexts, first = _starts(unique >> np.uint64(width))
    totals = np.add.reduceat(counts, first)
    kinds = np.diff(np.append(first, len(unique)))
    return Table(unique, counts, contexts, totals, kinds)


def _starts(ordered: U64) -> tuple[U64, npt.NDArray[np.intp]]:
    """Return distinct values of a sorted array and where each begins."""
    new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    first = np.flatnonzero(new)
    return ordered[first], first


def _runs(ordered: U64) -> tuple[U64, npt.NDArray[np.int64]]:
    unique, first = _starts(ordered)
    return unique, np.diff(np.append(first, len(ordered))).astype(np.int64)


def _interpolate(table: Table, keys: U64, lower: F64) -> F64:
    """Return P(c | h) of every key from that of the shorter context; sorted look-ups are fast."""
    order = np.argsort(keys)
    wanted = keys[order]
    found = _lookup(table.keys, table.counts, wanted)
    context = wanted >> np.uint64(8)
    total = _lookup(table.contexts, table.totals, context)
    kinds = _lookup(table.contexts, table.kinds, context)
    below = lower[order]
    seen = total > 0
    mixed = np.where(seen, (found + kinds * below) / np.maximum(total + kinds, 1), below)
    out = np.empty_like(lower)
    out[order] = mixed
    return out


def _lookup(keys: U64, values: npt.NDArray[np.int64], wanted: U64) -> npt.NDArray[np.int64]:
    """Return the value of each wanted key, 0 where it is not there."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
