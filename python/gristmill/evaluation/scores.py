"""Figures of completions by kind of hole, each with its interval over documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gristmill.evaluation.bootstrap import Interval, interval
from gristmill.evaluation.complete import Completion

ALL = "all"
# name: (numerator, denominator) of one completion; the figure is a ratio of sums
_FIGURES: dict[str, tuple[Callable[[Completion], float], Callable[[Completion], float]]] = {
    "exact": (lambda c: float(c.exact), lambda c: 1.0),
    "similarity": (lambda c: c.similarity, lambda c: 1.0),
    "keystrokes_saved": (
        lambda c: float(len(c.truth) - c.keystrokes),
        lambda c: float(len(c.truth)),
    ),
    "parses": (lambda c: float(bool(c.parses)), lambda c: float(c.parses is not None)),
}
FIGURES = tuple(_FIGURES)


def by_kind(
    done: Sequence[Completion], *, resamples: int, confidence: float, seed: int
) -> dict[str, dict[str, Any]]:
    """Return {kind: {"holes": n, figure: {value, low, high}}}, kinds in order, then "all".

    exact and parses are shares of holes, similarity a mean, keystrokes_saved a share of all
    characters (similarity.py defines them). A figure that no hole has (parses, where there is no
    Python) is left out.
    """
    kinds = [*dict.fromkeys(c.hole.kind for c in done), ALL] if done else []
    found: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        some = [c for c in done if kind in (ALL, c.hole.kind)]
        found[kind] = {"holes": len(some)}
        for name in FIGURES:
            figure = _figure(name, some, resamples, confidence, seed)
            if figure is not None:
                found[kind][name] = figure.plain()
    return found


def _figure(
    name: str, done: Sequence[Completion], resamples: int, confidence: float, seed: int
) -> Interval | None:
    above, below = per_document(name, done)
    if not below.sum() > 0:
        return None
    return interval(above, below, resamples=resamples, confidence=confidence, seed=seed)


def per_document(
    name: str, done: Sequence[Completion]
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Return numerators and denominators of a figure, one entry per document with a hole."""
    numerator, denominator = _FIGURES[name]
    place = {doc: i for i, doc in enumerate(dict.fromkeys(c.hole.doc_id for c in done))}
    above, below = np.zeros(len(place)), np.zeros(len(place))
    for c in done:
        if c.parses is None and name == "parses":
            continue
        above[place[c.hole.doc_id]] += numerator(c)
        below[place[c.hole.doc_id]] += denominator(c)
    return above, below


def table(title: str, measured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return figures by completer and kind as a table of the report: value (low to high)."""
    rows = [
        [name, kind, figures["holes"], *(_cell(figures.get(figure)) for figure in FIGURES)]
        for name, kinds in measured.items()
        for kind, figures in kinds.items()
    ]
    heads = [figure.replace("_", " ") for figure in FIGURES]
    return {"title": title, "columns": ["completer", "kind", "holes", *heads], "rows": rows}


def _cell(figure: Mapping[str, float | None] | None) -> str:
    return "–" if figure is None else f"{figure['value']:.3f} ({between(figure)})"


def between(figure: Mapping[str, float | None]) -> str:
    """Return the interval of a figure as text."""
    if figure["low"] is None:
        return "too few files"
    return f"{figure['low']:.3f} to {figure['high']:.3f}"
