"""What mattered in a search: the share of the spread of the figures that one setting explains.

Trials are put into groups by the setting's value (a choice: its values; a range: up to GROUPS parts
of equal size), and their figures are replaced by ranks, so that a trial that diverged weighs no
more than any bad one. The share is epsilon squared of Kruskal and Wallis: 1 - (1 - B/T) (n-1)/(n-k)
with B the sum of squares between the k groups and T the whole, 0 where chance explains as much.

optuna's own measures want more trials than a person runs: fANOVA fits a forest (and scikit-learn),
PED-ANOVA looks at the best tenth, which of 12 trials is one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

GROUPS = 3
FEWEST = 5  # trials with a figure: two groups of two tell nothing

Values = npt.NDArray[np.float64]


def explained(labels: Sequence[Hashable], figures: Sequence[float]) -> float:
    """Return the share of the ranks' spread between groups of equal labels, 0 to 1, by chance 0."""
    ranks = _ranks(np.asarray(figures, np.float64))
    n, names = len(ranks), list(dict.fromkeys(labels))
    whole = float(((ranks - ranks.mean()) ** 2).sum())
    if whole == 0.0 or not 1 < len(names) < n:
        return 0.0
    between = 0.0
    for name in names:
        group = ranks[[label == name for label in labels]]
        between += len(group) * float(group.mean() - ranks.mean()) ** 2
    return max(0.0, 1.0 - (1.0 - between / whole) * (n - 1) / (n - len(names)))


def importance(
    settings: Sequence[tuple[str, bool]],
    values: Sequence[dict[str, Any]],
    figures: Sequence[float],
) -> dict[str, float]:
    """Return the share of each setting, the largest first; {} below FEWEST figures.

    settings: (key, whether its values are a choice and not a range).
    """
    if len(figures) < FEWEST:
        return {}
    shares = {}
    for key, choice in settings:
        given = [one[key] for one in values]
        labels = [repr(value) for value in given] if choice else _thirds(given)
        shares[key] = explained(labels, figures)
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


def _thirds(values: Sequence[float]) -> list[int]:
    """Return the part each value falls into, by rank; equal values are in one part."""
    given = np.asarray(values, np.float64)
    distinct = np.unique(given)
    if len(distinct) <= GROUPS:
        return [int(np.searchsorted(distinct, value)) for value in given]
    edges = np.quantile(given, np.arange(1, GROUPS) / GROUPS)
    return [int(np.searchsorted(edges, value)) for value in given]


def _ranks(values: Values) -> Values:
    """Return ranks from 0, the mean of them for equal values."""
    return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])
