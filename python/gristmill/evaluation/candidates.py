"""Which of several checkpoints is best, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.evaluation.bits import Bits
from gristmill.evaluation.bootstrap import Interval, interval, paired_difference


@dataclass(frozen=True)
class Choice:
    """The chosen checkpoint, bits per byte of each, and how the others differ from it."""

    name: str
    bits: dict[str, Interval]
    differences: dict[str, Interval]  # other - chosen, bits per byte, paired over documents

    def verdicts(self) -> dict[str, str]:
        """Return for each other checkpoint: same, worse, not shown to differ, or too few files."""
        return {name: _verdict(d) for name, d in self.differences.items()}

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "chosen": self.name,
            "intervals": {name: i.plain() for name, i in self.bits.items()},
            "paired": {
                name: d.plain() | {"verdict": _verdict(d)} for name, d in self.differences.items()
            },
        }


def choose(measured: Mapping[str, Bits], *, resamples: int, confidence: float, seed: int) -> Choice:
    """Choose the fewest bits per byte, the first of equals; all measured on the same documents.

    Raises ValueError where they were not, or where there is nothing to choose from.
    """
    if not measured:
        raise ValueError("no checkpoint was measured")
    sizes = {tuple(bits.bytes.tolist()) for bits in measured.values()}
    if len(sizes) != 1:
        raise ValueError(f"checkpoints measured on different documents: {', '.join(measured)}")
    options = {"resamples": resamples, "confidence": confidence, "seed": seed}
    name = min(measured, key=lambda n: measured[n].per_byte)  # the first of equals
    size = measured[name].bytes
    intervals = {n: interval(b.bits, size, **options) for n, b in measured.items()}  # type: ignore[arg-type]
    differences = {
        n: paired_difference(b.bits, measured[name].bits, size, **options)  # type: ignore[arg-type]
        for n, b in measured.items()
        if n != name
    }
    return Choice(name, intervals, differences)


def _verdict(difference: Interval) -> str:
    if difference.low is None:
        return "too few files"
    if difference.value == difference.low == difference.high == 0.0:
        return "same"
    return "worse" if difference.low > 0.0 else "not shown to differ"
