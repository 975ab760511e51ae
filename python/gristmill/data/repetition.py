"""How much of a text repeats itself: lines, paragraphs, runs of words (Rae et al. 2021, table A1).

Of what occurs several times the first occurrence is text and the others are repetition. Characters
are those of words, so that no white space weighs; none is counted twice where runs overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from gristmill.data.code_rules import Broken
from gristmill.data.counter import U64, mix64
from gristmill.data.prose_settings import RepetitionStep

_PARAGRAPH = re.compile(r"\n\s*\n")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
Ints = npt.NDArray[np.int64]


def check_repetition(text: str, step: RepetitionStep) -> Broken | None:
    """Return the first rule of table A1 that the text breaks, or None."""
    for rule, value, bar in _measured(text, step):
        if value > bar < 1.0:
            return Broken(rule, f"{value:.3f}", f"<= {bar:g}")
    return None


def _measured(text: str, step: RepetitionStep) -> Iterator[tuple[str, float, float]]:
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    share, characters = repeated_pieces(lines)
    yield "max_lines", share, step.max_lines
    yield "max_line_characters", characters, step.max_line_characters
    pieces = [piece for piece in map(str.strip, _PARAGRAPH.split(text)) if piece]
    share, characters = repeated_pieces(pieces)
    yield "max_paragraphs", share, step.max_paragraphs
    yield "max_paragraph_characters", characters, step.max_paragraph_characters
    words = text.split()
    ids, sizes = _numbered(words)
    for n, bar in enumerate(step.max_top, 2):
        yield f"max_top {n} words", top_run(ids, sizes, n), bar
    for n, bar in enumerate(step.max_runs, 5):
        yield f"max_runs {n} words", repeated_runs(ids, sizes, n), bar


def repeated_pieces(pieces: Sequence[str]) -> tuple[float, float]:
    """Return the share of pieces that occurred before, and the share of their characters."""
    seen: set[str] = set()
    again = []
    for piece in pieces:
        if piece in seen:
            again.append(len(piece))
        seen.add(piece)
    return len(again) / max(1, len(pieces)), sum(again) / max(1, sum(map(len, pieces)))


def _numbered(words: Sequence[str]) -> tuple[U64, Ints]:
    """Return a number of 64 bits for each word, equal for equal words, and its length."""
    known: dict[str, int] = {}
    numbers = [known.setdefault(word, len(known)) for word in words]
    return mix64(np.array(numbers, np.uint64)), np.array([len(w) for w in words], np.int64)


def top_run(ids: U64, sizes: Ints, n: int) -> float:
    """Return the share of characters in the commonest run of n words, if it occurs twice.

    Of equally common runs the one with the most characters.
    """
    runs, _, which, counts = _runs(ids, n)
    if not len(runs) or counts.max() < 2:
        return 0.0
    best = 0
    for top in np.flatnonzero(counts == counts.max())[:16]:  # ties beyond are alike in size
        best = max(best, _covered(np.flatnonzero(which == top), sizes, n))
    return best / int(sizes.sum())


def repeated_runs(ids: U64, sizes: Ints, n: int) -> float:
    """Return the share of characters in runs of n words that occurred before."""
    runs, first, which, _ = _runs(ids, n)
    if not len(runs):
        return 0.0
    again = np.flatnonzero(first[which] != np.arange(len(which)))
    return _covered(again, sizes, n) / int(sizes.sum())


def _runs(ids: U64, n: int) -> tuple[U64, Ints, Ints, Ints]:
    """Return distinct runs of n words, where each is first, which run begins where, counts."""
    length = len(ids) - n + 1
    if length < 1:
        none = np.empty(0, np.int64)
        return np.empty(0, np.uint64), none, none, none
    hashes = np.zeros(length, np.uint64)
    for offset in range(n):
        hashes = hashes * _FACTOR + ids[offset : offset + length]
    found = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    return found[0], found[1], found[2].reshape(-1), found[3]


def _covered(begins: Ints, sizes: Ints, n: int) -> int:
    """Return the characters of the words in runs that begin at these places, each once."""
    edges = np.zeros(len(sizes) + 1, np.int64)
    np.add.at(edges, begins, 1)
    np.add.at(edges, begins + n, -1)
    return int(sizes[np.cumsum(edges)[:-1] > 0].sum())
