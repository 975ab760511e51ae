"""A comparison as tables: on the terminal, and as compare.html with compare.json beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.artifacts import storage_errors, write_json
from gristmill.console import table
from gristmill.evaluation.bootstrap import Interval
from gristmill.reporting import show, write_page
from gristmill.selection.comparing import Comparison

Table = dict[str, Any]


def tables(comparison: Comparison) -> list[Table]:
    """Return the tables: figures, differences, cost, settings."""
    found = [_figures(comparison), _differences(comparison), _cost(comparison)]
    if len(comparison.runs) > 1:
        names = [run.name for run in comparison.runs]
        rows = comparison.settings or [["nothing differs", *[None] * len(names)]]
        columns = ["setting", *names]
        found.append({"title": "Settings that differ", "columns": columns, "rows": rows})
    return found


def _figures(comparison: Comparison) -> Table:
    columns = ["run", "figure", "value", "low", "high"]
    rows = [
        [name, figure, *_ends(interval)]
        for name, figures in comparison.figures.items()
        for figure, interval in figures.items()
    ]
    return {"title": "Test files, each run by itself", "columns": columns, "rows": rows}


def _ends(interval: Interval) -> list[float | None]:
    return [interval.value, interval.low, interval.high]


def _differences(comparison: Comparison) -> Table:
    columns = ["run", "minus", "figure", "value", "low", "high", "files or holes", "verdict"]
    rows = [
        [d.name, d.against, d.figure, *_ends(d.interval), d.count, d.verdict]
        for d in comparison.differences
    ]
    title = "Differences on the same files, with paired intervals"
    return {"title": title, "columns": columns, "rows": rows}


def _cost(comparison: Comparison) -> Table:
    names = list(comparison.runs[0].cost)
    rows = [[run.name, *(run.cost[name] for name in names)] for run in comparison.runs]
    return {"title": "Cost", "columns": ["run", *names], "rows": rows}


def text(comparison: Comparison) -> str:
    """Return all tables for a terminal."""
    first = comparison.runs[0]
    lines = [f"test split {first.split[:16]}, {len(first.documents.ids)} files measured"]
    for one in tables(comparison):
        rows = [[show(value) for value in row] for row in one["rows"]]
        lines += ["", one["title"], table(one["columns"], rows)]
    return "\n".join(lines)


def write(comparison: Comparison, folder: Path) -> Path:
    """Write compare.html and compare.json; returns the page. Raises StorageError."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "compare.json", comparison.plain())
    names = ", ".join(run.name for run in comparison.runs)
    first = comparison.runs[0]
    lead = f"{names} · test split {first.split[:16]}, {len(first.documents.ids)} files measured"
    sections = [
        {"title": one["title"], "tables": [one], "plots": [_plot(comparison)] * (not number)}
        for number, one in enumerate(tables(comparison))
    ]
    write_page(folder / "compare.html", "Comparison", lead, sections)
    return folder / "compare.html"


def _plot(comparison: Comparison) -> dict[str, Any]:
    figures = [(name, found["bits per byte"].value) for name, found in comparison.figures.items()]
    series = [{"name": "test", "x": [x for x, _ in figures], "y": [y for _, y in figures]}]
    axes = {"x_label": "run", "y_label": "bits per byte"}
    return {"title": "Bits per byte on the test files", "kind": "bar", **axes, "series": series}
