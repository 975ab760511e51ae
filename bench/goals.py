"""Goals beside figures: what `goals.toml` asks of a machine, and what result files of it say."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

FILE = Path(__file__).with_name("goals.toml")
KINDS = ("share", "least", "mean", "rate", "memory")


@dataclass(frozen=True)
class Goal:
    """One line of goals.toml; `kind` is one of KINDS, `aim` its number."""

    op: str
    cases: str
    kind: str
    aim: float
    threads: int = 2
    peer: str = "PyTorch"
    recompute: bool = False

    def __str__(self) -> str:
        what = {
            "share": f"{100 * self.aim:.0f} % of the ceiling",
            "least": f"{self.aim:g}x {self.peer}",
            "mean": f"{self.aim:g}x {self.peer} on average",
            "rate": f"{self.aim:g} units/s",
            "memory": f"at most {self.aim:g} GB{', recomputed' * self.recompute}",
        }[self.kind]
        cases = self.cases.replace("|", r"\|") or "all"  # the bar ends a cell of a table
        return f"{self.op} `{cases}`, {self.threads} | {what}"

    def figure(self, rows: Iterable[Row]) -> str:
        """What the rows say, how many of several cases reach the aim; "" where there is none."""
        found = [value for row in rows if self._means(row) for value in self._values(row)]
        if not found:
            return ""
        if self.kind == "mean":
            middle, end = mean(found)
            return f"{middle:.2f}x ({end:.2f}){_verdict([end >= self.aim])}"
        counted = [self.reached(end) for _, end in found]
        ends = dict.fromkeys((self._told(*min(found)), self._told(*max(found))))
        return " to ".join(ends) + _verdict(counted)

    def reached(self, value: float) -> bool:
        """Peaks of memory are to be small, all else large."""
        return value <= self.aim if self.kind == "memory" else value >= self.aim

    def _means(self, row: Row) -> bool:
        name = f"{row.get('model', '')} {row['name']}".strip()
        return (
            row["op"] == self.op
            and re.search(self.cases, name) is not None
            and row.get("threads", self.threads) == self.threads
        )

    def _values(self, row: Row) -> list[tuple[float, float]]:
        """The figure and what counts of it, where the row has it."""
        if self.kind in ("least", "mean"):
            beside = row["peers"].get(self.peer)
            return [(beside["ratio"], beside["low"])] if beside else []
        if self.kind == "memory":
            kind = "ours, recomputed" if self.recompute else "ours"
            peak = row.get("memory", {}).get(kind)
            return [(1e-9 * peak["peak_bytes"],) * 2] if peak else []
        value = row["of_ceiling" if self.kind == "share" else "rate"]
        return [] if value is None else [(value, value)]

    def _told(self, value: float, end: float) -> str:
        if self.kind == "share":
            return f"{100 * value:.0f} %"
        if self.kind == "memory":
            return f"{value:.2f} GB"
        return f"{value:.1f}" if self.kind == "rate" else f"{value:.2f}x ({end:.2f})"


def mean(ratios: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Geometric mean of ratios with lower ends, and its own: errors of cases are independent."""
    logs = [math.log(value) for value, _ in ratios]
    wide = [math.log(value / end) for value, end in ratios]
    middle = math.fsum(logs) / len(logs)
    return math.exp(middle), math.exp(middle - math.hypot(*wide) / len(logs))


def _verdict(counted: Sequence[bool]) -> str:
    if all(counted):
        return ", met"
    return "" if len(counted) == 1 else f", {sum(counted)} of {len(counted)}"


def goals(path: Path = FILE) -> list[Goal]:
    """All goals, in their order."""
    lines = tomllib.loads(path.read_text("utf-8"))["goals"]
    out = []
    for line in lines:
        (kind,) = (k for k in KINDS if k in line)
        out.append(Goal(kind=kind, aim=line.pop(kind), **line))
    return out


def table(runs: Sequence[Sequence[Row]]) -> str:
    """A line for each goal, a column for each run."""
    lines = [
        f"| cases, threads | goal |{''.join(f' run {i + 1} |' for i in range(len(runs)))}",
        f"|---|---|{'---|' * len(runs)}",
    ]
    for goal in goals():
        figures = [goal.figure(rows) for rows in runs]
        if any(figures):
            lines.append(f"| {goal} | {' | '.join(figures)} |")
    return "\n".join(lines)
