"""Which test documents stand in the training split in long runs, id for id.

A test document is flagged where at least `SHARE` of its ids lie in runs of `RUN` ids that occur in
the training split (GPT-3's check, Brown et al. 2020, appendix C, with longer runs: code repeats
short ones everywhere). Runs are compared by 64-bit polynomial hashes: of 2^22 training runs and
2^19 test runs, the chance of one false match anywhere is 2^(22 + 19 - 64).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RUN = 32  # ids: some hundred characters
SHARE = 0.5
_FACTOR = np.uint64(0x9E3779B97F4A7C15 | 1)
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Overlap:
    """Of one test document: share of its ids in common runs, and the document they stand in."""

    share: float
    source: int  # training document with most of the common runs; -1 where there are none


def overlaps(
    tokens: npt.NDArray[np.integer],
    offsets: npt.NDArray[np.int64],
    documents: Sequence[npt.NDArray[np.integer]],
    run: int = RUN,
) -> list[Overlap]:
    """Compare each document with a training shard (tokens, offsets); runs stay in one document."""
    known, place = _runs(tokens, offsets, run)
    order = np.argsort(known, kind="stable")
    known, place = known[order], place[order]
    return [_compare(known, place, np.asarray(ids), run) for ids in documents]


def _compare(
    known: U64, place: npt.NDArray[np.int64], ids: npt.NDArray[np.integer], run: int
) -> Overlap:
    mine, _ = _runs(ids, np.array([0, len(ids)]), run)
    if len(mine) == 0 or len(known) == 0:
        return Overlap(0.0, -1)
    at = np.minimum(np.searchsorted(known, mine), len(known) - 1)
    hit = known[at] == mine
    if not hit.any():
        return Overlap(0.0, -1)
    covered = np.zeros(len(ids) + 1, np.int64)  # +1 where a run begins, -1 behind its end
    begins = np.flatnonzero(hit)
    np.add.at(covered, begins, 1)
    np.add.at(covered, begins + run, -1)
    share = float((np.cumsum(covered)[:-1] > 0).mean())
    return Overlap(share, int(np.bincount(place[at[hit]]).argmax()))


def _runs(
    tokens: npt.NDArray[np.integer], offsets: npt.NDArray[np.int64], run: int
) -> tuple[U64, npt.NDArray[np.int64]]:
    """Return the hash of every run inside one document, and the document's number."""
    n = len(tokens) - run + 1
    if n <= 0:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    hashes = np.zeros(n, np.uint64)
    for offset in range(run):
        hashes *= _FACTOR
        hashes += tokens[offset : offset + n].astype(np.uint64) + np.uint64(1)
    number = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    inside = number[:n] == number[run - 1 :]
    return hashes[inside], number[:n][inside]
