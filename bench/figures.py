"""What is made of samples: medians, spread, ratios with intervals, share of the ceiling."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RESAMPLES = (
    2000  # of the bootstrap: its ends are then themselves known to some 5 % of their distance
)
OWN = ("ours", "again", "ceiling")  # sides that are no peers


@dataclass(frozen=True)
class Beside:
    """Ours against another side of the same rounds: other / ours, above 1 where ours is faster.

    `low` and `high` are the ends of the 95 % bootstrap interval of the median.
    """

    milliseconds: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f}x ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Row:
    """Medians of one case; spread is half the distance of the quartiles over the median.

    `of_ceiling` is None without a compiler for the ceiling. `noise` is ours against ours in the
    same rounds.
    """

    name: str
    milliseconds: float
    spread: float
    rate: float
    unit: str
    of_ceiling: float | None
    peers: dict[str, Beside] = field(default_factory=dict)
    noise: Beside | None = None
    intensity: float | None = None  # FLOP a byte, for the roofline
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Against the first peer."""
        return next((p.ratio for p in self.peers.values()), None)

    def __str__(self) -> str:
        ours = (
            f"{self.milliseconds:9.3f} ms ±{100 * self.spread:3.0f} %{self.rate:9.1f} {self.unit}/s"
        )
        share = "    no ceiling" if self.of_ceiling is None else f"{self.ceiling_text()} of ceiling"
        beside = [f"{name} {peer}" for name, peer in self.peers.items()]
        return "  ".join((f"{self.name:<34}{ours:<36}{share}", *beside))

    def ceiling_text(self) -> str:
        """The share of the ceiling in percent."""
        return "" if self.of_ceiling is None else f"{100 * self.of_ceiling:5.0f} %"


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Ends of the 95 % bootstrap interval of the median (Efron and Tibshirani, 13.3)."""
    x = np.asarray(values, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(x), (RESAMPLES, len(x)))
    low, high = np.quantile(np.median(x[drawn], axis=1), (0.025, 0.975))
    return float(low), float(high)


def beside(ours: Sequence[float], other: Sequence[float]) -> Beside:
    """Another side over ours, round by round."""
    ratios = [b / a for a, b in zip(ours, other, strict=True)]
    return Beside(1e3 * statistics.median(other), statistics.median(ratios), *interval(ratios))


def summary(
    name: str, taken: Mapping[str, list[float]], amount: float, unit: str, **rest: Any
) -> Row:
    """The row of what `interleave` gave for "ours", "ceiling" (or none) and any other sides."""
    ours = taken["ours"]
    middle = statistics.median(ours)
    low, _, high = statistics.quantiles(ours, n=4) if len(ours) > 1 else (middle,) * 3
    share = None
    if "ceiling" in taken:
        share = statistics.median(c / o for c, o in zip(taken["ceiling"], ours, strict=True))
    return Row(
        name=name,
        milliseconds=1e3 * middle,
        spread=(high - low) / 2 / middle,
        rate=amount / middle,
        unit=unit,
        of_ceiling=share,
        peers={n: beside(ours, other) for n, other in taken.items() if n not in OWN},
        noise=beside(ours, taken["again"]) if "again" in taken else None,
        **rest,
    )
