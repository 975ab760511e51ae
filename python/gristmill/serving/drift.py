"""Has what a model is asked, or answers, moved away from its reference?

Two tests a feature, and both must say so: the two-sample Kolmogorov-Smirnov test, with Stephens's
approximation (1970), that chance alone does not explain it (its level is divided by the number of
features: Bonferroni); and the population stability index over the reference's ten equally filled
bins, that it is large by the usual convention (Siddiqi, "Credit risk scorecards", 2006, chapter 9).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 10
BAR = 0.2  # a PSI from which a shift is called large
ALPHA = 0.01  # of a false alarm, per window and kind of request
FEWEST = 50  # values on either side, below which nothing is said
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """One feature in one window, against its reference."""

    feature: str
    psi: float
    ks: float  # largest distance of the two distribution functions
    p: float  # of a distance as large by chance
    mean: float
    reference: float  # its mean
    drifted: bool

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def compare(
    window: Mapping[str, Sequence[float]], reference: Mapping[str, Mapping[str, Any]]
) -> list[Shift]:
    """Each feature of `window` that has a reference, the surest shift first.

    reference: as checkpoint/reference.py measures it. Requests of one text are alike, so a sample
    weighs no more than the texts it is of; a window is taken to be of as many as the reference.
    Features with fewer than FEWEST values on
    either side are left out.
    """
    tested = {
        name: (np.asarray(values, np.float64), np.asarray(reference[name]["sample"], np.float64))
        for name, values in window.items()
        if name in reference and min(len(values), reference[name]["n"]) >= FEWEST
    }
    found = []
    for name, (ours, theirs) in tested.items():
        texts = int(reference[name]["documents"])
        index, (distance, p) = psi(ours, theirs), ks(ours, theirs, texts)
        drifted = index >= BAR and p < ALPHA / len(tested)
        means = float(ours.mean()), float(theirs.mean())
        found.append(Shift(name, index, distance, p, *means, drifted))
    return sorted(found, key=lambda shift: (not shift.drifted, shift.p))


def psi(sample: Floats, reference: Floats) -> float:
    """Population stability index, sum((p - q) ln(p / q)).

    Bins end at the reference's deciles; equal deciles are one (a feature that is mostly 0 has two
    bins). Half a count is added to each, so that an empty one is finite.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    bins = len(edges) + 1

    def shares(values: Floats) -> Floats:
        counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=bins) + 0.5
        share: Floats = counts / counts.sum()
        return share

    p, q = shares(sample), shares(reference)
    return float(((p - q) * np.log(p / q)).sum())


def ks(sample: Floats, reference: Floats, most: int | None = None) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov distance, and the chance of one as large.

    most: independent values that either sample holds at most; None: all are.
    """
    values = np.concatenate([sample, reference])
    ours = np.searchsorted(np.sort(sample), values, side="right") / len(sample)
    theirs = np.searchsorted(np.sort(reference), values, side="right") / len(reference)
    distance = float(np.abs(ours - theirs).max())
    a, b = (min(len(s), most or len(s)) for s in (sample, reference))
    root = math.sqrt(a * b / (a + b))
    x = (root + 0.12 + 0.11 / root) * distance
    if x < 0.2:  # the series converges slowly there, and is 1 to 12 digits
        return distance, 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101))
    return distance, min(1.0, max(0.0, 2 * sum(terms)))
