"""Groups of documents, so that a good average cannot hide a bad part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.evaluation.bits import Bits
from gristmill.evaluation.bootstrap import interval
from gristmill.evaluation.complete import Completion
from gristmill.evaluation.scores import per_document

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


def measure(
    labels: Sequence[str],
    ids: Sequence[str],
    bits: Bits,
    baseline: Bits,
    done: Sequence[Completion],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Return per label: documents, bytes, bits per byte with interval, the baseline's, holes.

    labels, ids, bits and baseline are per document, in one order; done is of any of them. A label
    whose documents hold no byte is left out.
    """
    found = {}
    for label, positions in groups(labels).items():
        size = bits.bytes[positions]
        if not size.sum():
            continue
        figure = interval(
            bits.bits[positions], size, resamples=resamples, confidence=confidence, seed=seed
        )
        inside = {ids[i] for i in positions}
        holes = [c for c in done if c.hole.doc_id in inside]
        found[label] = {
            "documents": len(positions),
            "bytes": int(size.sum()),
            "bits_per_byte": figure.plain(),
            "ngram": float(baseline.bits[positions].sum() / size.sum()),
            "holes": len(holes),
            "exact": _share("exact", holes),
            "keystrokes_saved": _share("keystrokes_saved", holes),
        }
    return found


def _share(name: str, done: Sequence[Completion]) -> float | None:
    above, below = per_document(name, done)
    return float(above.sum() / below.sum()) if below.sum() > 0 else None


def worst(measured: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> tuple[str, str] | None:
    """Return (slicing, label) with the most bits per byte over the n-gram's; None without slices.

    Against the baseline, because a slice may be hard for everyone.
    """
    cells = [
        (figures["bits_per_byte"]["value"] / figures["ngram"], slicing, label)
        for slicing, labels in measured.items()
        for label, figures in labels.items()
    ]
    return max(cells)[1:] if cells else None
