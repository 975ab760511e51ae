"""Which holes and documents are measured: seeded, spread over the files, nested as n grows."""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.data.counter import string_hash
from gristmill.data.document import Document
from gristmill.data.holes import Hole, find_holes


def choose_holes(
    documents: Sequence[Document], kinds: Sequence[str], n: int, seed: int
) -> list[Hole]:
    """Return up to `n` holes of each kind, by kind, then by document and place.

    Every document gives its first hole before any gives its second, in a seeded order of documents.
    """
    if n == 0 or not documents:
        return []
    position = {document.id: number for number, document in enumerate(documents)}
    ranked = sorted(documents, key=lambda d: (string_hash(seed, d.id), d.path))
    each, found = -(-2 * n // len(documents)), []
    for document in ranked:
        seen = dict.fromkeys(kinds, 0)
        for hole in find_holes(document, kinds, each, seed):
            found.append((seen[hole.kind], hole))
            seen[hole.kind] += 1
    chosen = []
    for kind in kinds:
        turn = sorted((pair for pair in found if pair[1].kind == kind), key=lambda pair: pair[0])
        chosen += sorted((h for _, h in turn[:n]), key=lambda h: (position[h.doc_id], h.start))
    return chosen


def choose_documents(ids: Sequence[str], n: int, seed: int) -> list[int]:
    """Return the positions of `n` documents by a seeded order of their ids, ascending; 0: all."""
    return sorted(_ranked(ids, seed)[:n] if n else range(len(ids)))


def choose_bytes(ids: Sequence[str], sizes: Sequence[int], most: int, seed: int) -> list[int]:
    """Return the positions of documents of at most `most` bytes together, ascending, one at least.

    In a seeded order of their ids, each that still fits is taken.
    """
    ranked, total = _ranked(ids, seed), 0
    chosen = []
    for i in ranked:
        if total + sizes[i] <= most:
            chosen.append(i)
            total += sizes[i]
    return sorted(chosen or ranked[:1])


def _ranked(ids: Sequence[str], seed: int) -> list[int]:
    return sorted(range(len(ids)), key=lambda i: (string_hash(seed, ids[i]), i))
