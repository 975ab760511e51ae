"""Which documents share a long run of words or characters with an example of an evaluation set.

Runs are compared by 64-bit hashes, and each hit is then confirmed on the words themselves. What is
compared has no case and no punctuation, and is in NFKC; `characters` has no space either.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.data.counter import U64, mix64
from gristmill.data.evaluation_sets import Example
from gristmill.data.prose_settings import ContaminationStep

_WORD = re.compile(r"[^\W_]+")
_UNSEEN = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")  # soft hyphen, zero width
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_UNKNOWN = np.uint64(0)  # number of what stands in no example
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that holds a run of an example."""

    document: int
    example: int
    shared: str  # the first run they share


@dataclass(frozen=True)
class _Index:
    """Runs of one length of all examples, by hash."""

    length: int
    hashes: U64  # sorted
    example: Ints  # of each hash
    start: Ints  # within the example


def find(
    texts: Sequence[str],
    examples: Sequence[Example],
    step: ContaminationStep,
    progress: Callable[[str], None] = lambda message: None,
) -> tuple[list[Hit], set[int]]:
    """Return every (document, example) that share a run, and which examples are too short.

    texts: of the documents. Documents in order, examples in order within each. An example below
    `step.least` units would be found everywhere and says nothing.
    """
    split, joint = (_words, " ") if step.unit == "words" else (_letters, "")
    units = [split(example.text) for example in examples]
    numbers: dict[str, int] = {}
    for one in units:
        for unit in one:
            numbers.setdefault(unit, len(numbers) + 1)
    indexes = list(_indexes(units, numbers, step))
    hits = []
    for document, text in enumerate(texts):
        if document % 500 == 0:
            progress(f"contamination: document {document:,} of {len(texts):,}")
        own = split(text)
        ids = _ids(own, numbers)
        first: dict[int, str] = {}
        for index in indexes:
            for example, start, at in _matches(index, ids):
                run = own[at : at + index.length]  # hashes may collide
                if example not in first and units[example][start : start + index.length] == run:
                    first[example] = joint.join(run)
        hits += [Hit(document, example, first[example]) for example in sorted(first)]
    return hits, {number for number, one in enumerate(units) if len(one) < step.least}


def by_set(
    step: ContaminationStep,
    label: str,
    examples: Sequence[Example],
    hits: Sequence[Hit],
    short: Container[int],
) -> list[dict[str, Any]]:
    """Return per set how many examples there are, are too short, and stand in a document."""
    found = []
    for given in step.set:
        mine = {i for i, example in enumerate(examples) if example.set == given.name}
        own = [hit for hit in hits if hit.example in mine]
        found.append(
            {
                "step": label,
                "set": given.name,
                "path": given.path,
                "examples": len(mine),
                "too short to look for": sum(i in short for i in mine),
                "contaminated": len({hit.example for hit in own}),
                "documents": len({hit.document for hit in own}),
                "run": f"{step.length} {step.unit}",
            }
        )
    return found


def _words(text: str) -> list[str]:
    if not text.isascii():  # one writing for what reads the same
        text = unicodedata.normalize("NFKC", _UNSEEN.sub("", text))
    return _WORD.findall(text.lower())


def _letters(text: str) -> list[str]:
    return list("".join(_words(text)))


def _ids(units: Sequence[str], numbers: dict[str, int]) -> U64:
    found = np.array([numbers.get(unit, 0) for unit in units], np.uint64)
    return np.where(found == 0, _UNKNOWN, mix64(found))


def _indexes(
    units: Sequence[Sequence[str]], numbers: dict[str, int], step: ContaminationStep
) -> Iterator[_Index]:
    """Yield an index per length: the run, and shorter ones for examples that are shorter."""
    by_length: dict[int, list[int]] = {}
    for number, one in enumerate(units):
        if len(one) >= step.least:
            by_length.setdefault(min(len(one), step.length), []).append(number)
    for length, members in sorted(by_length.items()):
        hashes = [_runs(_ids(units[number], numbers), length) for number in members]
        owner = np.repeat(np.array(members, np.int64), [len(h) for h in hashes])
        start = np.concatenate([np.arange(len(h)) for h in hashes])
        flat = np.concatenate(hashes)
        order = np.argsort(flat, kind="stable")
        yield _Index(length, flat[order], owner[order], start[order])


def _runs(ids: U64, length: int) -> U64:
    """Return the hash of each run of `length` units."""
    n = max(0, len(ids) - length + 1)
    hashes = np.zeros(n, np.uint64)
    for offset in range(length):
        hashes = hashes * _FACTOR + ids[offset : offset + n]
    return hashes


def _matches(index: _Index, ids: U64) -> Iterator[tuple[int, int, int]]:
    """Yield (example, place in it, place in the document) of equal hashes, by the latter."""
    mine = _runs(ids, index.length)
    low = np.searchsorted(index.hashes, mine, side="left")
    high = np.searchsorted(index.hashes, mine, side="right")
    for at in np.flatnonzero(high > low).tolist():
        for place in range(int(low[at]), int(high[at])):
            yield int(index.example[place]), int(index.start[place]), at
