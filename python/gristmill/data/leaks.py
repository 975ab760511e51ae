"""The leak check: no group, no equal text and no near-duplicate in two splits.

It trusts nothing that split decided: texts are hashed and compared anew, all pairs of splits.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from gristmill.data.dedup import similar_pairs
from gristmill.data.document import Document
from gristmill.data.splitting import SPLITS, Assignment

KINDS = ("group", "exact", "near")


@dataclass(frozen=True, slots=True)
class Leak:
    """Two documents in different splits that should not be, and what is common to them."""

    kind: str  # one of KINDS
    first_split: str
    first: str  # source/path
    second_split: str
    second: str
    similarity: float  # Jaccard for near, 1 for exact, 0 for group (not measured)


def find_leaks(
    documents: Sequence[Document], assigned: Sequence[Assignment], similarity: float
) -> list[Leak]:
    """Return all leaks between train, val and test, by kind and place; left out files cannot leak.

    similarity: Jaccard of 5-word shingles from which on two files are near-duplicates, in (0, 1].
    A group or an equal text is reported once for each pair of splits.
    """
    inside = [i for i, a in enumerate(assigned) if a.split in SPLITS]
    documents, assigned = [documents[i] for i in inside], [assigned[i] for i in inside]
    names = [f"{document.source}/{document.path}" for document in documents]
    splits = [assignment.split for assignment in assigned]
    texts = [hashlib.sha256(d.text.encode("utf-8", "surrogatepass")).digest() for d in documents]
    found = [("group", *pair, 0.0) for pair in _shared([a.group for a in assigned], splits)]
    found += [("exact", *pair, 1.0) for pair in _shared(texts, splits)]
    for first, second, value in similar_pairs([d.text for d in documents], similarity):
        if splits[first] != splits[second] and texts[first] != texts[second]:
            found.append(("near", first, second, value))
    return [
        Leak(kind, splits[first], names[first], splits[second], names[second], value)
        for kind, first, second, value in found
    ]


def _shared(keys: Sequence[str | bytes], splits: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield, for each key and pair of splits, the first members that have it."""
    members: dict[str | bytes, dict[str, int]] = defaultdict(dict)
    for index, (key, split) in enumerate(zip(keys, splits, strict=True)):
        members[key].setdefault(split, index)
    for by_split in members.values():
        yield from combinations(by_split.values(), 2)
