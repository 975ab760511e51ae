"""Near-duplicates: MinHash signatures, banded buckets, exact Jaccard similarity of each pair.

The similarity of two texts is |A ∩ B| / |A ∪ B| over their sets of word shingles. MinHash (Broder
1997, "On the resemblance and containment of documents") finds the candidates; every one of them is
then confirmed on the sets themselves, so no reported pair is an estimate. Used by clean (removal,
clusters) and by the leak check between splits.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rensa import RMinHash  # type: ignore[import-untyped]

from gristmill.data.counter import U64, mix64

SEED = 1  # of the permutations: signatures are compared within one run of one function only
RECALL = 0.999  # of a pair exactly at the threshold, by the banding; more similar ones exceed it
BUCKET = 64  # in a fuller bucket each member is compared with the first 64 only: linear, not square
_WORD = re.compile(r"\w+|[^\w\s]")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplication is a bijection on 64 bits


class Pair(NamedTuple):
    """Two texts, by their index with first < second, and their exact Jaccard similarity."""

    first: int
    second: int
    similarity: float


def shingle_sets(texts: Iterable[str], words: int = 5) -> list[U64]:
    """Return per text the sorted unique 64-bit hashes of its runs of `words` words.

    A word is a run of letters, digits and underscores or one sign; space does not count. A text of
    fewer words is one shingle; a text without words has the empty set.
    """
    known: dict[str, int] = {}
    hashes: list[int] = []
    sets = []
    for text in texts:
        ids = []
        for word in _WORD.findall(text):
            number = known.get(word)
            if number is None:
                number = known[word] = len(hashes)
                hashes.append(_word_hash(word))
            ids.append(number)
        table = np.array(hashes, dtype=np.uint64)
        sets.append(_shingles(table[np.array(ids, dtype=np.int64)], words))
    return sets


def _word_hash(word: str) -> int:
    raw = word.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def _shingles(words: U64, width: int) -> U64:
    """Return the set of polynomial hashes (modulo 2^64) of all windows; words: (n,) uint64."""
    width = min(width, len(words))
    if width == 0:
        return words
    count = len(words) - width + 1
    total = np.zeros(count, dtype=np.uint64)
    for offset in range(width):
        total = total * _BASE + words[offset : offset + count]
    return np.unique(mix64(total))


def signatures(sets: Sequence[U64], permutations: int = 128) -> npt.NDArray[np.uint32]:
    """Return the MinHash signatures (n, permutations) of sets of hashes; empty sets give zeros."""
    matrix = np.zeros((len(sets), permutations), dtype=np.uint32)
    filled = [index for index, one in enumerate(sets) if len(one)]
    if filled:
        flat = np.concatenate([sets[index] for index in filled])
        ends = np.cumsum([0, *(len(sets[index]) for index in filled)]).astype(np.uint64)
        digest = RMinHash.digest_matrix_from_flat_token_hashes(flat, ends, permutations, SEED)
        matrix[filled] = digest.to_rows()
    return matrix


def jaccard(first: U64, second: U64) -> float:
    """Return |A ∩ B| / |A ∪ B| of two sorted unique arrays; two empty sets have 0."""
    if not len(first) or not len(second):
        return 0.0
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)


def similar_pairs(
    texts: Sequence[str], threshold: float, *, words: int = 5, permutations: int = 128
) -> list[Pair]:
    """Return all pairs of texts with similarity >= threshold, in the order of their indices."""
    return similar_sets(shingle_sets(texts, words), threshold, permutations=permutations)


def similar_sets(sets: Sequence[U64], threshold: float, *, permutations: int = 128) -> list[Pair]:
    """Return all pairs of shingle sets with similarity >= threshold.

    A pair at the threshold is found with a probability of at least RECALL where the number of
    permutations allows it (128 do from 0.3 up). Raises ValueError for a threshold outside (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold {threshold} given; allowed: above 0, at most 1")
    matrix = signatures(sets, permutations)
    # four standard deviations below the threshold, an estimate cannot belong to a true pair
    spread = 4.0 * math.sqrt(threshold * (1.0 - threshold) / permutations)
    enough = max(1, math.ceil(permutations * (threshold - spread)))
    pairs = []
    for first, second in sorted(_candidates(matrix, sets, rows_per_band(threshold, permutations))):
        if np.count_nonzero(matrix[first] == matrix[second]) >= enough:
            similarity = jaccard(sets[first], sets[second])
            if similarity >= threshold:
                pairs.append(Pair(first, second, similarity))
    return pairs


def rows_per_band(threshold: float, permutations: int) -> int:
    """Return the most rows r per band so that 1 - (1 - s^r)^(p // r) >= RECALL at s = threshold.

    Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4.2. One row is the best
    there is where no r reaches RECALL.
    """
    for rows in range(permutations, 0, -1):
        found = 1.0 - (1.0 - threshold**rows) ** (permutations // rows)
        if found >= RECALL:
            return rows
    return 1


def _candidates(
    matrix: npt.NDArray[np.uint32], sets: Sequence[U64], rows: int
) -> set[tuple[int, int]]:
    """Return index pairs (first < second) that agree on all rows of some band."""
    filled = np.array([index for index, one in enumerate(sets) if len(one)], dtype=np.int64)
    found: set[tuple[int, int]] = set()
    for band in range(matrix.shape[1] // rows):
        part = np.ascontiguousarray(matrix[filled, band * rows : (band + 1) * rows])
        for members in _equal_rows(part):
            found.update(_pairs(filled[members].tolist()))
    return found


def _equal_rows(part: npt.NDArray[np.uint32]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield ascending index groups (two or more) of equal rows of part (n, rows)."""
    if len(part) < 2:
        return
    keys = part.view(np.dtype((np.void, part.dtype.itemsize * part.shape[1]))).ravel()
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    for group in np.split(order, np.cumsum(counts)[:-1]):
        if len(group) > 1:
            yield group


def _pairs(members: list[int]) -> Iterator[tuple[int, int]]:
    head = members[:BUCKET]
    yield from combinations(head, 2)
    for late in members[BUCKET:]:
        yield from ((early, late) for early in head)


def clusters(count: int, pairs: Iterable[Pair]) -> list[int]:
    """Return for each of `count` rows the smallest index that pairs connect it with."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]  # halves the path, so chains stay short
            index = parent[index]
        return index

    for first, second, _ in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return [root(index) for index in range(count)]
