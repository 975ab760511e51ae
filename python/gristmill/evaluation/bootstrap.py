"""Percentile intervals over documents (Efron and Tibshirani 1993, chapter 13).

Documents are drawn with replacement, never single tokens or holes: what stands in one file is not
independent. Every figure is a ratio of sums (bits over bytes, hits over holes), so a long document
weighs as much in a resample as it does in the figure. Few documents say little about others: below
FEWEST there is no interval, since its ends would be read as certainty.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.data.counter import uniform

Values = npt.NDArray[np.number[Any]]
BLOCK = 1 << 22  # draws held at once
FEWEST = 5  # documents: of 4, one resample in 64 is one document over and over


@dataclass(frozen=True)
class Interval:
    """A figure and where it lies with the given confidence; None where too few files say so."""

    value: float
    low: float | None
    high: float | None

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def excludes(self, other: Interval) -> bool:
        """Say whether this lies above `other` as a whole; never without intervals."""
        return self.low is not None and other.high is not None and self.low > other.high


def resampled(
    numerators: Values, denominators: Values, resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """Return the ratio of sums in `resamples` draws of documents, (R, k) for numerators (k, n).

    denominators: (n,). A draw without anything in the denominator is NaN. The draws are a pure
    function of (seed, n), so two calls with the same seed are paired.
    """
    above = np.atleast_2d(np.asarray(numerators, np.float64))
    below = np.asarray(denominators, np.float64)
    n = below.size
    if n == 0 or above.shape[1] != n:
        raise ValueError(f"numerators {above.shape} and denominators {below.shape} given")
    out = np.empty((resamples, len(above)))
    step = max(1, BLOCK // n)
    for first in range(0, resamples, step):
        rows = np.arange(first, min(first + step, resamples))
        drawn = (uniform(seed, rows[:, None], np.arange(n)) * n).astype(np.int64)
        total = below[drawn].sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            for k, values in enumerate(above):
                out[rows, k] = np.where(total > 0, values[drawn].sum(1) / total, np.nan)
    return out


def interval(
    numerators: Values,
    denominators: Values,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return sum(numerators) / sum(denominators), both (n,) per document, with its interval.

    Raises ValueError where the denominators sum to nothing.
    """
    total = float(np.sum(denominators))
    if not total > 0:
        raise ValueError("interval: the denominators sum to 0, there is nothing to measure")
    value = float(np.sum(numerators)) / total
    if _too_few(denominators):
        return Interval(value, None, None)
    draws = resampled(numerators, denominators, resamples, seed)[:, 0]
    return Interval(value, *_percentiles(draws, confidence))


def paired_difference(
    first: Values,
    second: Values,
    denominators: Values,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the ratio of `first` minus that of `second`, both drawn from the same documents."""
    total = float(np.sum(denominators))
    if not total > 0:
        raise ValueError("paired_difference: the denominators sum to 0")
    value = float(np.sum(first) - np.sum(second)) / total
    if _too_few(denominators):
        return Interval(value, None, None)
    draws = resampled(np.stack([first, second]), denominators, resamples, seed)
    return Interval(value, *_percentiles(draws[:, 0] - draws[:, 1], confidence))


def _too_few(denominators: Values) -> bool:
    """Say whether fewer than FEWEST documents have anything to measure."""
    return int(np.count_nonzero(denominators)) < FEWEST


def _percentiles(draws: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    tail = (1.0 - confidence) / 2.0
    low, high = np.nanquantile(draws, [tail, 1.0 - tail])
    return float(low), float(high)
