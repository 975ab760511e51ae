"""What training changed: bits per byte of the weights a run began from, and of those it made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gristmill.evaluation.bits import Bits
from gristmill.evaluation.bootstrap import Interval, interval, paired_difference


@dataclass(frozen=True)
class Gain:
    """Before, after, and after - before, paired over the same documents."""

    before: Interval
    after: Interval
    difference: Interval

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {name: found.plain() for name, found in vars(self).items()}

    def table(self) -> dict[str, Any]:
        """Return it as a table of the report."""
        names = ("as given", "trained", "difference, paired over files")
        rows = [
            [n, i.value, i.low, i.high] for n, i in zip(names, vars(self).values(), strict=True)
        ]
        columns = ["", "bits per byte", "low", "high"]
        return {"title": "The given model, before and after", "columns": columns, "rows": rows}


def gain(before: Bits, after: Bits, *, resamples: int, confidence: float, seed: int) -> Gain:
    """Return the change; raises ValueError where the two were measured on different documents."""
    if before.bytes.tolist() != after.bytes.tolist():
        raise ValueError("before and after were measured on different documents")
    options = {"resamples": resamples, "confidence": confidence, "seed": seed}
    size = after.bytes
    return Gain(
        interval(before.bits, size, **options),  # type: ignore[arg-type]
        interval(after.bits, size, **options),  # type: ignore[arg-type]
        paired_difference(after.bits, before.bits, size, **options),  # type: ignore[arg-type]
    )
