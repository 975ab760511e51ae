"""Batches by number: which tokens step n sees is a pure function of (seed, epoch, step).

Each epoch walks all documents in a new order and cuts the walk into windows of `context` tokens:
a document that does not fit goes on in the next window, nothing is dropped. The windows are then
shuffled. With a hole rate, each stretch of a document in a window is permuted on its own (the
context-level fill-in-the-middle of Bavarian et al. 2022), so prefix, suffix and middle are always
seen together, which in a window far shorter than a document they otherwise would not be.

Documents of a shard with a mask are conversations: none is cut, one that does not fit into what is
left of a window begins the next, and the rest of the window is padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.data import fim
from gristmill.data.counter import hash64
from gristmill.data.shards import Shard
from gristmill.errors import ConfigError, DataError

IGNORED = -100  # target that no loss is computed for
_DOCUMENTS, _WINDOWS, _HOLES = 0, 1, 2  # streams of random numbers
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Epoch:
    """One walk over all documents. Parts are numbered in walking order."""

    start: npt.NDArray[np.int64]  # (parts,) first token in the shard
    length: npt.NDArray[np.int64]  # (parts,)
    hole: npt.NDArray[np.bool_]  # (parts,)
    ends: npt.NDArray[np.bool_]  # (parts,) whether the document ends with this part
    first: npt.NDArray[np.int64]  # (windows + 1,) first part of each window
    order: npt.NDArray[np.int64]  # (windows,) shuffled


class Loader:
    """Batches of a shard, for training (with holes) or for a look at the loss (fim_rate 0)."""

    def __init__(
        self, shard: Shard, batch: int, context: int, seed: int,
        fim_rate: float = 0.0, spm_rate: float = 0.0,
        special: Mapping[str, int] | None = None, tokenizer: fim.Codec | None = None,
    ) -> None:  # fmt: skip
        """Batches of (batch, context); holes need `special`, and `tokenizer` to cut at characters.

        Raises DataError for a shard without tokens or targets, or a conversation longer than the
        context; ConfigError for holes in conversations, ValueError for impossible sizes.
        """
        if batch < 1 or context < 2:
            raise ValueError(f"batch {batch}, context {context} given; allowed: from 1, from 2")
        if fim_rate and special is None:
            raise ValueError(f"fim_rate {fim_rate} given without the ids of the special tokens")
        if len(shard.tokens) == 0:
            raise DataError(f"{shard.folder} holds no tokens; give split more documents")
        self._whole = None if shard.mask is None else _conversations(shard, context, fim_rate)
        self.shard, self.size, self.context = shard, batch, context
        self._seeds = [int(hash64(seed, stream)[0]) for stream in (_DOCUMENTS, _WINDOWS, _HOLES)]
        self.fim_rate, self.spm_rate, self.codec = fim_rate, spm_rate, tokenizer
        self.special = dict(special or {})
        self._hidden = [self.special[s] for s in (fim.PREFIX, fim.SUFFIX, fim.MIDDLE) if special]
        self._pad = self.special.get(fim.PAD, 0)
        self._ends = np.zeros(0, np.int64)  # windows of all epochs up to this one
        self._epochs: dict[int, _Epoch] = {}

    def batch(self, step: int) -> tuple[Ints, Ints]:
        """Return (inputs, targets), both (batch, context) int32, of step 0, 1, ...

        targets[b, t] follows inputs[b, t]; IGNORED after the end of a window, where the mask says
        that the next token does not count, and where it is a sentinel, which the user of a hole
        gives and the model never has to say.
        """
        if step < 0:
            raise ValueError(f"step {step} given, allowed: 0 or more")
        inputs = np.full((self.size, self.context), self._pad, np.int32)
        targets = np.full((self.size, self.context), IGNORED, np.int32)
        for row in range(self.size):
            self._fill(step * self.size + row, inputs[row], targets[row])
        for sentinel in self._hidden:
            targets[targets == sentinel] = IGNORED
        return inputs, targets

    def windows(self, epoch: int) -> int:
        """Return how many windows, that is rows of batches, an epoch has."""
        return len(self._epoch(epoch).order)

    def _fill(self, number: int, inputs: Ints, targets: Ints) -> None:
        """Write window `number`, counted over all epochs, into one row (context,)."""
        epoch, within = self._locate(number)
        plan = self._epoch(epoch)
        window = plan.order[within]
        parts = range(int(plan.first[window]), int(plan.first[window + 1]))
        row = np.concatenate([self._part(plan, epoch, part) for part in parts])
        inputs[: len(row)] = row
        targets[: len(row) - 1] = row[1:]
        if self.shard.mask is not None:
            spans = ((int(plan.start[p]), int(plan.length[p])) for p in parts)
            counts = np.concatenate([self.shard.mask[at : at + n] for at, n in spans])
            targets[: len(row) - 1][counts[1:] == 0] = IGNORED
        last = parts[-1]
        if not plan.hole[last] and not plan.ends[last]:
            targets[len(row) - 1] = self.shard.tokens[plan.start[last] + plan.length[last]]

    def _part(self, plan: _Epoch, epoch: int, part: int) -> npt.NDArray[np.int32]:
        """Return the ids of one part, permuted if it has a hole."""
        start, length = int(plan.start[part]), int(plan.length[part])
        ids = self.shard.tokens[start : start + length].astype(np.int32)
        if not plan.hole[part]:
            return ids
        permuted = fim.permute(
            ids.tolist(), self._seeds[_HOLES], epoch, part, 1.0, self.spm_rate, self.special,
            self.codec,
        )  # fmt: skip
        return np.asarray(permuted, np.int32)

    def _locate(self, number: int) -> tuple[int, int]:
        """Return (epoch, window within it) of a window counted from the beginning of training."""
        while len(self._ends) == 0 or number >= self._ends[-1]:
            before = int(self._ends[-1]) if len(self._ends) else 0
            self._ends = np.append(self._ends, before + self.windows(len(self._ends)))
        epoch = int(np.searchsorted(self._ends, number, side="right"))
        return epoch, number - (int(self._ends[epoch - 1]) if epoch else 0)

    def _epoch(self, epoch: int) -> _Epoch:
        """Return the plan of an epoch; the last two are kept, since a batch may touch both."""
        if epoch not in self._epochs:
            kept = sorted(self._epochs)[-1:]
            self._epochs = {number: self._epochs[number] for number in kept}
            self._epochs[epoch] = self._plan(epoch)
        return self._epochs[epoch]

    def _plan(self, epoch: int) -> _Epoch:
        offsets, context = self.shard.offsets, self.context
        documents = len(self.shard)
        if self._whole is not None:
            order = np.argsort(hash64(self._seeds[_DOCUMENTS], epoch, self._whole))
            return self._conversation_plan(epoch, self._whole[order])
        # a part ends with its document or its window; a window loses at most SENTINELS + SLACK
        lost = fim.SENTINELS + fim.SLACK
        most = documents + (len(self.shard.tokens) + lost * documents) // max(1, context - lost) + 2
        wanted = np.zeros(most, np.bool_)
        if self.fim_rate > 0.0:
            wanted = fim.has_hole(self._seeds[_HOLES], epoch, np.arange(most), self.fim_rate)
        shuffled = np.argsort(hash64(self._seeds[_DOCUMENTS], epoch, np.arange(documents)))
        spans = zip(offsets[shuffled].tolist(), offsets[shuffled + 1].tolist(), strict=True)
        parts, first = _lay(spans, context, wanted.tolist())
        return self._shuffle(epoch, parts, first)

    def _conversation_plan(self, epoch: int, documents: npt.NDArray[np.int64]) -> _Epoch:
        """Lay whole conversations in this order, each into the window that is being filled."""
        offsets = self.shard.offsets
        parts: list[tuple[int, int, bool, bool]] = []
        first, room = [0], self.context
        begins, ends = offsets[documents].tolist(), offsets[documents + 1].tolist()
        for at, end in zip(begins, ends, strict=True):
            if end - at > room:
                first.append(len(parts))
                room = self.context
            parts.append((at, end - at, False, True))
            room -= end - at
        return self._shuffle(epoch, parts, [*first, len(parts)])

    def _shuffle(
        self, epoch: int, parts: list[tuple[int, int, bool, bool]], first: list[int]
    ) -> _Epoch:
        start, length, hole, ends = np.array(parts, np.int64).reshape(-1, 4).T
        order = np.argsort(hash64(self._seeds[_WINDOWS], epoch, np.arange(len(first) - 1)))
        return _Epoch(
            start, length, hole.astype(np.bool_), ends.astype(np.bool_), np.array(first), order
        )


def _conversations(shard: Shard, context: int, fim_rate: float) -> npt.NDArray[np.int64]:
    """Return the documents in which something counts; raises for what cannot be laid whole."""
    if fim_rate:
        raise ConfigError(
            f"train.fim_rate = {fim_rate:g} given for conversations, which have no holes; allowed: "
            "0 (--set train.fim_rate=0)"
        )
    lengths = np.diff(shard.offsets)
    if (lengths > context).any():
        raise DataError(
            f"{shard.folder}: {int((lengths > context).sum())} conversations are longer than the "
            f"context of {context} tokens, the longest has {int(lengths.max())}; raise "
            "design.context, or let split leave them out (split.chat.too_long)"
        )
    assert shard.mask is not None
    sums = np.concatenate([[0], np.cumsum(shard.mask, dtype=np.int64)])
    found = np.flatnonzero(sums[shard.offsets[1:]] > sums[shard.offsets[:-1]])
    if len(found) == 0:
        raise DataError(f"{shard.folder}: no token of any conversation counts; give answers")
    return found


def _lay(
    spans: Iterable[tuple[int, int]], context: int, wanted: list[bool]
) -> tuple[list[tuple[int, int, bool, bool]], list[int]]:
    """Lay documents (begin, end) one after the other into windows of `context` tokens.

    Returns the parts (start, length, hole, ends its document) and the first part of each window,
    with the number of parts at the end. A part with a hole leaves room for what the hole adds.
    """
    parts: list[tuple[int, int, bool, bool]] = []
    first, room = [0], context
    added = fim.SENTINELS + fim.SLACK
    for at, end in spans:
        while at < end:
            hole = wanted[len(parts)] and min(end - at, room - added) >= fim.SMALLEST
            take = min(end - at, room - added if hole else room)
            ends = at + take == end
            parts.append((at, take, hole, ends))
            at += take
            room -= take + (added - ends if hole else 0)  # its own eos only moves
            if room <= 0:
                first.append(len(parts))
                room = context
    if first[-1] != len(parts):
        first.append(len(parts))
    return parts, first
