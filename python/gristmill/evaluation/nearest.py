"""Which training documents share the longest runs of tokens with a text.

This is nearest text, not causal attribution: a model's answer comes from all its weights, and a
common run may be common everywhere. An answer that is copied stands out, though: its run is long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GRAM = 4  # tokens: shorter runs are shared by all texts
BLOCK = 1 << 22  # tokens looked at at once: bounds the memory, not the size of the corpus
_FACTOR = np.uint64(0x9E3779B97F4A7C15 | 1)
U64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Near:
    """A document with its longest common run, and the share of the text's GRAM-grams in it."""

    document: int
    run: int  # tokens
    at: int  # first token of the run in the text,
    place: int  # and in the corpus
    share: float


def nearest(
    ids: Sequence[int], tokens: npt.NDArray[np.integer], offsets: Ints, most: int = 5
) -> list[Near]:
    """Return the documents nearest to `ids`, by longest run, then by share.

    Document i is tokens[offsets[i]:offsets[i + 1]]; a run lies in one document. Empty for fewer
    than GRAM ids, or where no GRAM-gram is common. Grams are found by hash, then compared id by id.
    """
    text = np.asarray(ids, np.int64)
    grams = _grams(text)
    if not len(grams) or not len(tokens):
        return []
    where, mine = _common(grams, tokens)
    inside = np.searchsorted(offsets, where, "right") - 1
    keep = where + GRAM <= offsets[np.minimum(inside + 1, len(offsets) - 1)]
    keep &= _same(text, tokens, where, mine)
    where, mine, document = where[keep], mine[keep], inside[keep]
    if not len(where):
        return []
    return _ranked(where, mine, document, len(grams), most)


def _grams(ids: npt.NDArray[np.integer]) -> U64:
    """Return the hash of every GRAM-gram: (n - GRAM + 1,)."""
    n = len(ids) - GRAM + 1
    if n <= 0:
        return np.empty(0, np.uint64)
    hashes = np.zeros(n, np.uint64)
    for offset in range(GRAM):
        hashes *= _FACTOR
        hashes += ids[offset : offset + n].astype(np.uint64) + np.uint64(1)
    return hashes


def _common(grams: U64, tokens: npt.NDArray[np.integer]) -> tuple[Ints, Ints]:
    """Return (place in the corpus, place in the text) of every pair of equal hashes."""
    order = np.argsort(grams, kind="stable")
    known = grams[order]
    likely = np.zeros(1 << 16, bool)  # most grams of the corpus fall through it at once
    likely[known >> np.uint64(48)] = True
    places: list[Ints] = []
    texts: list[Ints] = []
    for start in range(0, len(tokens), BLOCK):
        hashes = _grams(np.asarray(tokens[start : start + BLOCK + GRAM - 1]))
        maybe = np.flatnonzero(likely[hashes >> np.uint64(48)])
        low = np.searchsorted(known, hashes[maybe], "left")
        high = np.searchsorted(known, hashes[maybe], "right")
        count = high - low
        rank = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        places.append(np.repeat(maybe, count) + start)
        texts.append(order[np.repeat(low, count) + rank])
    return np.concatenate(places), np.concatenate(texts)


def _same(
    text: Ints, tokens: npt.NDArray[np.integer], where: Ints, mine: Ints
) -> npt.NDArray[np.bool_]:
    """Compare every pair of grams id by id."""
    same = np.ones(len(where), bool)
    for offset in range(GRAM):
        same &= tokens[where + offset] == text[mine + offset]
    return same


def _ranked(where: Ints, mine: Ints, document: Ints, grams: int, most: int) -> list[Near]:
    """Join neighbouring grams to runs and rank the documents."""
    order = np.lexsort((where, where - mine))  # along the diagonals: a run is a row of neighbours
    where, mine, document = where[order], mine[order], document[order]
    new = np.ones(len(where), bool)
    new[1:] = (np.diff(where) != 1) | (np.diff(where - mine) != 0)
    begins = np.flatnonzero(new)
    lengths = np.diff([*begins, len(where)]) + GRAM - 1
    pairs = np.unique(document * grams + mine)
    owners, counts = np.unique(pairs // grams, return_counts=True)
    share = dict(zip(owners.tolist(), (counts / grams).tolist(), strict=True))
    best: dict[int, Near] = {}
    for i in np.argsort(-lengths, kind="stable").tolist():
        at, number = begins[i], int(document[begins[i]])
        if number not in best:
            run = int(lengths[i])
            best[number] = Near(number, run, int(mine[at]), int(where[at]), share[number])
    return sorted(best.values(), key=lambda near: (-near.run, -near.share, near.document))[:most]
