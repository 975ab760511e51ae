"""Two result files of `gristmill bench`: what became slower, by more than the noise of both?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.errors import ConfigError

Row = Mapping[str, Any]
LEAST = 0.02  # what differs between two processes on an idle machine: pages lie elsewhere


@dataclass(frozen=True)
class Change:
    """A case of both files. `ratio` is new / old of its time (above 1: slower), each as a multiple
    of its ceiling where both have one; `floor` is what it must exceed to count."""

    name: str
    ratio: float
    floor: float
    by_ceiling: bool

    @property
    def regression(self) -> bool:
        """Slower by more than the noise."""
        return self.ratio > self.floor

    def __str__(self) -> str:
        percent = 100 * (self.ratio - 1)
        verdict = "slower" if self.regression else "faster" if 1 / self.ratio > self.floor else "="
        by = "of the ceiling" if self.by_ceiling else "of the time"
        noise = f"noise ±{100 * (self.floor - 1):.0f} % {by}"
        return f"{self.name:<48}{percent:+6.1f} %  {verdict:<8}{noise}"


def read(path: Path) -> list[Row]:
    """The rows of a result file. Raises ConfigError when it is none."""
    try:
        rows: list[Row] = json.loads(path.read_text("utf-8"))["rows"]
        if not rows or not all(isinstance(r["milliseconds"], (int, float)) for r in measured(rows)):
            raise ValueError("no row has a time")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no result of gristmill bench ({error}); write one with --json FILE"
        ) from None
    return rows


def measured(rows: Iterable[Row]) -> list[Row]:
    """Without those that say why there is no figure."""
    return [row for row in rows if "error" not in row]


def key(row: Row) -> tuple[str, ...]:
    """What must be equal of two rows to be compared."""
    return tuple(str(row.get(k, "")) for k in ("op", "name", "table", "threads", "kernel"))


def compare(old: Sequence[Row], new: Sequence[Row]) -> list[Change]:
    """Every case of `new` that `old` has too."""
    before = {key(row): row for row in measured(old)}
    return [_change(before[key(row)], row) for row in measured(new) if key(row) in before]


def _change(old: Row, new: Row) -> Change:
    shares = old.get("of_ceiling"), new.get("of_ceiling")
    floor = max(_noise(old) * _noise(new), 1 + LEAST)
    threads = new.get("threads", "?")
    name = f"{new['op']} {new['name']}, {threads} thread{'' if threads == 1 else 's'}"
    if shares[0] and shares[1]:
        return Change(name, shares[0] / shares[1], floor, True)
    return Change(name, new["milliseconds"] / old["milliseconds"], floor, False)


def _noise(row: Row) -> float:
    """How far from 1 ours against ours may be: the further end of its interval."""
    noise = row.get("noise")
    return 1.0 if not noise else max(noise["high"], 1 / noise["low"])


def table(old: Path, rows: Sequence[Row]) -> tuple[list[str], bool]:
    """Lines, and whether one of them is a regression."""
    before = read(old)
    changes = compare(before, rows)
    lines = [f"against {old}: {len(changes)} of {len(measured(rows))} cases are in both"]
    lines += [str(change) for change in changes]
    worse = [change for change in changes if change.regression]
    if worse:
        lines.append(f"{len(worse)} slower than the noise explains; measure again to be sure")
    return lines, bool(worse)
