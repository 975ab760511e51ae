"""Groups of documents, so that a good average cannot hide a bad part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

SMALLEST = 3  # documents; smaller areas are one group together
OTHER = "other areas"
LENGTHS = ("1 shortest", "2 short", "3 long", "4 longest")
DIFFICULTIES = ("1 easiest", "2 easy", "3 hard", "4 hardest")


def quartiles(values: npt.ArrayLike, names: Sequence[str]) -> list[str]:
    """Return the name of each value's quarter: by rank, equal values in order, sizes within one."""
    found = np.asarray(values, np.float64)
    rank = np.empty(len(found), np.int64)
    rank[np.argsort(found, kind="stable")] = np.arange(len(found))
    return [names[min(len(names) - 1, int(r) * len(names) // max(1, len(found)))] for r in rank]


def areas(given: Sequence[str]) -> list[str]:
    """Return the area of each document; areas of fewer than SMALLEST documents become one."""
    size = Counter(given)
    return [area if size[area] >= SMALLEST else OTHER for area in given]


def groups(labels: Sequence[str]) -> Mapping[str, npt.NDArray[np.int64]]:
    """Return the positions of each label, labels in order of their names."""
    names = np.asarray(labels)
    return {str(name): np.flatnonzero(names == name) for name in np.unique(names)}


def label_all(
    wanted: Sequence[str], area: Sequence[str], sizes: npt.ArrayLike, difficulty: npt.ArrayLike
) -> dict[str, list[str]]:
    """Return per wanted slicing the label of each document.

    area, sizes (bytes) and difficulty (the baseline's bits per byte) are per document. Raises
    ValueError for another slicing than area, length, difficulty.
    """
    known = {
        "area": lambda: areas(area),
        "length": lambda: quartiles(sizes, LENGTHS),
        "difficulty": lambda: quartiles(difficulty, DIFFICULTIES),
    }
    for name in wanted:
        if name not in known:
            raise ValueError(f"slice {name!r} given, allowed: {', '.join(known)}")
    return {name: known[name]() for name in wanted}
