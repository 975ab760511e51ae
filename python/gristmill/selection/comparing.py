"""Runs beside each other: every difference is paired, both models having seen the same files.

Figures of two models on one test split share what makes its files hard, so the interval of their
difference, drawn from the same files (evaluation/bootstrap.py), is far narrower than the two
intervals apart; only it says which one is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.errors import ConfigError, DataError
from gristmill.evaluation.bootstrap import Interval, interval, paired_difference
from gristmill.evaluation.complete import Completion
from gristmill.evaluation.measured import BITS
from gristmill.evaluation.scores import FIGURES, per_document
from gristmill.selection.tested import METHODS, MODEL, Tested, common, read_tested

BITS_PER_BYTE = "bits per byte"
LESS_IS_BETTER = {BITS_PER_BYTE}


@dataclass(frozen=True)
class Difference:
    """`name` minus `against` in one figure, on the files (or holes) that both have."""

    name: str
    against: str
    figure: str
    interval: Interval
    count: int  # files of bits per byte, holes of the others

    @property
    def verdict(self) -> str:
        """better or worse where the interval leaves 0 out."""
        low, high = self.interval.low, self.interval.high
        if low is None or high is None:
            return "too few files"
        if low <= 0.0 <= high:
            return "no difference"
        return "better" if (high < 0.0) == (self.figure in LESS_IS_BETTER) else "worse"


@dataclass(frozen=True)
class Comparison:
    """All runs, the first being the one that the others are compared with."""

    runs: list[Tested]
    figures: dict[str, dict[str, Interval]]  # run, figure
    differences: list[Difference]
    settings: list[list[Any]]  # key, then a value per run; only keys that differ

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "reference": self.runs[0].name,
            "split": self.runs[0].split,
            "runs": {
                run.name: {
                    "figures": {k: v.plain() for k, v in self.figures[run.name].items()},
                    "cost": run.cost,
                    "documents": len(run.documents.ids),
                }
                for run in self.runs
            },
            "differences": [
                {
                    "run": d.name, "against": d.against, "figure": d.figure, "count": d.count,
                    "verdict": d.verdict, **d.interval.plain(),
                }
                for d in self.differences
            ],
            "settings": {
                key: dict(zip((run.name for run in self.runs), values, strict=True))
                for key, *values in self.settings
            },
        }  # fmt: skip


def compare(folders: Sequence[Path]) -> Comparison:
    """Compare tested runs with the first; one alone with the methods it was tested beside.

    Raises ArtifactError for a run that was not tested, DataError for runs of different test files.
    """
    runs = [read_tested(folder) for folder in folders]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ConfigError(f"the same run is given twice: {', '.join(names)}")
    _check_split(runs)
    options = _options(runs[0])
    first, *others = runs
    differences = _with_methods(first, options) if not others else []
    for other in others:
        differences += _paired(first, other, options)
    figures = {run.name: _figures(run, options) for run in runs}
    return Comparison(runs, figures, differences, _settings(runs))


def _options(run: Tested) -> dict[str, Any]:
    config = run.record["config"]
    c = config.get("evaluate", {})
    return {
        "resamples": c.get("bootstrap", 1000),
        "confidence": c.get("confidence", 0.95),
        "seed": config.get("project", {}).get("seed", 0),
    }


def _check_split(runs: Sequence[Tested]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.split != first.split:
            raise DataError(
                f"{first.name} and {run.name} were tested on different files: the test split of "
                f"{first.name} has digest {first.split[:16]}, that of {run.name} {run.split[:16]}; "
                "figures on different files do not compare. Runs share a split where seed and "
                "sources and the tables collect, clean and split are the same"
            )


def _figures(run: Tested, options: dict[str, Any]) -> dict[str, Interval]:
    documents = run.documents
    found = {BITS_PER_BYTE: interval(documents.bits[BITS], documents.bytes, **options)}
    for figure in FIGURES:
        above, below = per_document(figure, run.holes.get(MODEL, []))
        if below.sum() > 0:
            found[_label(figure)] = interval(above, below, **options)
    return found


def _label(figure: str) -> str:
    return f"holes: {figure.replace('_', ' ')}"


def _paired(first: Tested, other: Tested, options: dict[str, Any]) -> list[Difference]:
    """Return every figure of `other` minus that of `first`."""
    theirs = set(other.documents.ids)
    ids = [id for id in first.documents.ids if id in theirs]
    if not ids:
        raise DataError(
            f"{first.name} and {other.name} measured no file in common; give both the same "
            "evaluate.documents"
        )
    a, b = first.documents.take(ids), other.documents.take(ids)
    change = paired_difference(b.bits[BITS], a.bits[BITS], a.bytes, **options)
    found = [Difference(other.name, first.name, BITS_PER_BYTE, change, len(ids))]
    mine, other_holes = common(first.holes.get(MODEL, []), other.holes.get(MODEL, []))
    return found + _holes(other.name, first.name, other_holes, mine, options)


def _with_methods(run: Tested, options: dict[str, Any]) -> list[Difference]:
    """Return the run minus each method without a network on the same files and holes."""
    documents = run.documents
    found = []
    for method in METHODS:
        other = documents.bits[method]
        change = paired_difference(documents.bits[BITS], other, documents.bytes, **options)
        found.append(Difference(run.name, method, BITS_PER_BYTE, change, len(documents.ids)))
    for completer, done in run.holes.items():
        if completer != MODEL:
            theirs, mine = common(done, run.holes[MODEL])
            found += _holes(run.name, completer, mine, theirs, options)
    return found


def _holes(
    name: str,
    against: str,
    done: Sequence[Completion],
    others: Sequence[Completion],
    options: dict[str, Any],
) -> list[Difference]:
    """Return the differences in the figures of the same holes, in the same order."""
    found = []
    for figure in FIGURES:
        mine, theirs = list(done), list(others)
        if figure == "parses":  # a hole counts where both were tried
            both = [None not in (a.parses, b.parses) for a, b in zip(done, others, strict=True)]
            mine = [c for c, counts in zip(done, both, strict=True) if counts]
            theirs = [c for c, counts in zip(others, both, strict=True) if counts]
        above, below = per_document(figure, mine)
        other, _ = per_document(figure, theirs)
        if np.sum(below) > 0:
            change = paired_difference(above, other, below, **options)
            found.append(Difference(name, against, _label(figure), change, len(mine)))
    return found


def _settings(runs: Sequence[Tested]) -> list[list[Any]]:
    """Return the keys of the configuration that differ, with the value of every run."""
    flat = [flatten(run.record["config"]) for run in runs]
    keys = sorted({key for one in flat for key in one})
    rows = [[key, *(one.get(key) for one in flat)] for key in keys]
    return [row for row in rows if any(value != row[1] for value in row[2:])]


def flatten(tables: Any, prefix: str = "") -> dict[str, Any]:
    """Return {"a.b.0.c": value} of nested tables and lists of tables."""
    if isinstance(tables, dict):
        items = list(tables.items())
    elif isinstance(tables, list) and any(isinstance(item, dict) for item in tables):
        items = list(enumerate(tables))
    else:
        return {prefix: tables}
    found: dict[str, Any] = {}
    for key, value in items:
        found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return found
