"""Which holes and documents are measured: seeded, spread over the files, nested as n grows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from gristmill.data.counter import string_hash
from gristmill.data.document import Document
from gristmill.data.holes import Hole, find_holes
from gristmill.evaluation.endings import ending
from gristmill.evaluation.similarity import exact


def choose_holes(
    documents: Sequence[Document], kinds: Sequence[str], n: int, seed: int
) -> tuple[list[Hole], int]:
    """Return up to `n` holes of each kind, by kind, then by document and place; and how many were
    passed over, since the rule that ends a completion would not end theirs at the truth.

    Every document gives its first hole before any gives its second, in a seeded order of documents.
    """
    if n == 0 or not documents:
        return [], 0
    position = {document.id: number for number, document in enumerate(documents)}
    text = {document.id: document.text for document in documents}
    ranked = sorted(documents, key=lambda d: (string_hash(seed, d.id), d.path))
    each, found = -(-2 * n // len(documents)), []
    for document in ranked:
        seen = dict.fromkeys(kinds, 0)
        for hole in find_holes(document, kinds, each, seed):
            found.append((seen[hole.kind], hole))
            seen[hole.kind] += 1
    chosen, passed = [], 0
    for kind in kinds:
        fair: list[Hole] = []
        for _, hole in sorted((p for p in found if p[1].kind == kind), key=lambda pair: pair[0]):
            if len(fair) == n:
                break
            if _ends_at_its_truth(hole, text[hole.doc_id]):
                fair.append(hole)
            else:
                passed += 1
        chosen += sorted(fair, key=lambda h: (position[h.doc_id], h.start))
    return chosen, passed


def _ends_at_its_truth(hole: Hole, text: str) -> bool:
    """Say whether whoever writes exactly what stands in the file is scored as exact."""
    rest = text[hole.start :]
    return exact(text[hole.start : hole.end], rest[: ending(hole.kind, text[: hole.start], rest)])


def choose_documents(ids: Sequence[str], n: int, seed: int) -> list[int]:
    """Return the positions of `n` documents by a seeded order of their ids, ascending; 0: all."""
    return sorted(_ranked(ids, seed)[:n] if n else range(len(ids)))


def choose_bytes(ids: Sequence[str], sizes: Sequence[int], most: int, seed: int) -> list[int]:
    """Return the positions of documents of at most `most` bytes together, ascending, one at least.

    The first ones in a seeded order of their ids, up to the first that does not fit: to go on with
    smaller ones would prefer short files.
    """
    ranked = _ranked(ids, seed)
    total = list(accumulate(sizes[i] for i in ranked))
    return sorted(ranked[: max(1, bisect_right(total, most))])


def _ranked(ids: Sequence[str], seed: int) -> list[int]:
    return sorted(range(len(ids)), key=lambda i: (string_hash(seed, ids[i]), i))
