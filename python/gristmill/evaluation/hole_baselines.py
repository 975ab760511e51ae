"""Two completers without a network, which a model has to beat: cache n-gram, longest-suffix copy.

Both work on ids of the tokenizer and see what the model sees of a hole (text before and after it),
and the training split. What they return is cut by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gristmill.evaluation.ngram import Table, count_keys

Ids = npt.NDArray[np.int64]
ORDER = 5  # ids of the longest n-gram, the predicted one included


class Tokens(Protocol):
    """What is needed of a tokenizer."""

    vocab_size: int
    special: dict[str, int]

    def __hash__(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def token_bytes(self, id: int) -> bytes: ...


class CacheNGram:
    """Greedy n-gram completion of training split and file (Tu, Su and Devanbu 2014, section 3).

    At the longest context that either knows, P = l P_train + (1 - l) P_file with l = 1 / (1 + H),
    H being how often the file has the context: the more the file repeats it, the more it counts.
    """

    name = "cache n-gram"

    def __init__(
        self, train: npt.NDArray[np.integer], tokenizer: Tokens, order: int = ORDER
    ) -> None:
        """Count `train` (n,), the ids of all training documents one after the other."""
        self.tokenizer = tokenizer
        self.width = max(1, (tokenizer.vocab_size - 1).bit_length())
        self.longest = min(order, 64 // self.width) - 1  # ids of context
        self.ends = frozenset(tokenizer.special.values())
        self.tables = [self._table(train, length) for length in range(1, self.longest + 1)]

    def _table(self, train: npt.NDArray[np.integer], length: int) -> Table:
        if len(train) <= length:
            raise ValueError(f"{len(train)} ids to train on, the n-gram needs {length + 1} or more")
        keys = np.zeros(len(train) - length, np.uint64)
        for offset in range(length + 1):
            keys <<= np.uint64(self.width)
            keys |= train[offset : offset + len(keys)].astype(np.uint64)
        return count_keys(keys, self.width)

    def pieces(self, prefix: str, suffix: str) -> Iterator[bytes]:
        """Yield the bytes of one id after another; ends at a special id or an unknown context."""
        file, at = _around(self.tokenizer, prefix, suffix)
        while True:
            chosen = self._next(file, at)
            if chosen is None or chosen in self.ends:
                return
            yield self.tokenizer.token_bytes(chosen)
            file = np.insert(file, at, chosen)
            at += 1

    def after(self, ids: Sequence[int]) -> Iterator[int]:
        """Yield the likeliest id after `ids`, again and again; ends at an unknown context."""
        file = np.asarray(ids, np.int64)
        while (chosen := self._next(file, len(file))) is not None:
            yield chosen
            file = np.append(file, chosen)

    def _next(self, file: Ids, at: int) -> int | None:
        """Return the likeliest id at position `at` of the file; the smallest where two are."""
        for length in range(min(self.longest, at), 0, -1):
            context = file[at - length : at]
            ids, counts = self._in_train(context)
            local = _followers(file, context, at)
            if len(local) + len(ids) == 0:
                continue
            total = int(counts.sum()) if len(ids) else 1
            weights: dict[int, int] = dict(zip(ids.tolist(), counts.tolist(), strict=True))
            for id in local.tolist():  # both sides times (1 + H) total, so that ties are exact
                weights[id] = weights.get(id, 0) + total
            return min(weights, key=lambda id: (-weights[id], id))
        return None

    def _in_train(self, context: Ids) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Return the ids that follow a context in the training split, and how often."""
        table, key = self.tables[len(context) - 1], 0
        for id in context.tolist():
            key = key << self.width | id
        low = int(np.searchsorted(table.keys, np.uint64(key << self.width)))
        last = (key << self.width) + (1 << self.width) - 1
        high = int(np.searchsorted(table.keys, np.uint64(last), side="right"))
        mask = np.uint64((1 << self.width) - 1)
        return (table.keys[low:high] & mask).astype(np.int64), table.counts[low:high]


class LongestCopy:
    """Copies what followed the longest earlier occurrence of the text before the hole.

    It looks in the file (before and after the hole), then in the training split, which must match
    further back to be preferred; of equally long matches the last one counts.
    """

    name = "longest-suffix copy"

    def __init__(self, train: npt.NDArray[np.integer], tokenizer: Tokens) -> None:
        """Copy from `train` (n,), the ids of all training documents one after the other."""
        self.tokenizer, self.train = tokenizer, np.asarray(train)
        self.ends = frozenset(tokenizer.special.values())
        self.width = max(1, (tokenizer.vocab_size - 1).bit_length())
        self.reach = 64 // self.width  # ids in a key, the last one in the highest bits
        keys = np.zeros(len(self.train), np.uint64)
        for back in range(min(self.reach, len(keys))):
            ids = self.train[: len(keys) - back].astype(np.uint64)
            keys[back:] |= ids << np.uint64(self.width * (self.reach - 1 - back))
        self.places = np.argsort(keys, kind="stable")
        self.keys = keys[self.places]

    def pieces(self, prefix: str, suffix: str) -> Iterator[bytes]:
        """Yield the bytes of one id after another; ends with the document it copies from."""
        file, at = _around(self.tokenizer, prefix, suffix)
        before, after = file[:at], file[at:]
        sources = (before, after, self.train)
        starts = (_where(before, before), _where(after, before), self._in_train(before))
        found = [_longest(*pair, before) for pair in zip(sources, starts, strict=True)]
        length, place = max(found, key=lambda match: match[0])
        if length == 0:
            return
        source = sources[found.index((length, place))]
        for id in map(int, source[place:]):
            if id in self.ends:
                return
            yield self.tokenizer.token_bytes(id)

    def _in_train(self, before: Ids) -> npt.NDArray[np.int64]:
        """Return where in the training split the last ids before the hole stand: the rarest of
        them, up to `reach` ids, found by bisection.
        """
        low, high, key, matched = 0, len(self.keys), 0, 0
        for back in range(min(self.reach, len(before))):
            shift = self.width * (self.reach - 1 - back)
            key |= int(before[-1 - back]) << shift
            ends = np.array([key, key + (1 << shift) - 1], np.uint64)
            first = int(np.searchsorted(self.keys[low:high], ends[0]))
            last = int(np.searchsorted(self.keys[low:high], ends[1], side="right"))
            if first == last:
                break
            low, high, matched = low + first, low + last, back + 1
        places = self.places[low:high] if matched else self.places[:0]
        return np.sort(places[places < len(self.train) - 1])


@lru_cache(maxsize=512)  # both baselines fill the same holes, and encoding is most of the work
def _around(tokenizer: Tokens, prefix: str, suffix: str) -> tuple[Ids, int]:
    """Return the ids of the text before and after the hole, and where the hole is."""
    before, after = tokenizer.encode(prefix), tokenizer.encode(suffix)
    return np.array([*before, *after], np.int64), len(before)


def _followers(file: Ids, context: Ids, at: int) -> Ids:
    """Return what follows each occurrence of `context` in the file; none may span the hole."""
    n = len(context)
    if len(file) <= n:
        return np.empty(0, np.int64)
    places = np.flatnonzero(file[:-n] == context[0])
    for offset in range(1, n):
        places = places[file[places + offset] == context[offset]]
    places = places[(places + n < at) | (places >= at)]
    return file[places + n]


def _where(source: Ids, before: Ids) -> npt.NDArray[np.int64]:
    """Return where the last id of `before` stands in `source` with something after it."""
    return np.flatnonzero(source[:-1] == before[-1]) if len(before) else np.empty(0, np.int64)


def _longest(
    source: npt.NDArray[np.integer], places: npt.NDArray[np.int64], before: Ids
) -> tuple[int, int]:
    """Return (length, place after it) of the longest end of `before` in `source`, looking at
    places where its last id stands; of equally long ones the last.
    """
    length, last = 0, 0
    while len(places):
        length, last = length + 1, int(places[-1]) + length + 1
        if length == len(before):
            break
        places = places[places > 0] - 1
        places = places[source[places] == int(before[-1 - length])]
    return length, last
