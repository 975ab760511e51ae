"""Plots as inline SVG, drawn by matplotlib, coloured by the page (light and dark)."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

KINDS = ("line", "points", "bar", "hist")
# Stand-ins: matplotlib wants colours, the page decides them by CSS variables after drawing.
_INK, _RULE = "#010203", "#040506"
_SERIES = [f"#0a0b{index:02x}" for index in range(6)]
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be selected, and the file is small
    "svg.hashsalt": "gristmill",  # the same data gives the same bytes
    "text.parse_math": False,  # a name with dollar signs is a name
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _RULE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
_MANY = 12  # bars with longer or more names than this lie on their side


def draw(plot: Mapping[str, Any]) -> str:
    """Return one plot of a stage's report as an <svg> element.

    `plot` has title, kind (one of KINDS), x_label, y_label, series [{name, x, y}], and may have
    x_log, y_log. Raises ValueError for another kind or a series whose x and y differ in length.
    """
    kind = plot.get("kind")
    if kind not in KINDS:
        raise ValueError(f"plot {plot.get('title')!r}: kind {kind!r}, allowed: {', '.join(KINDS)}")
    series = list(plot.get("series", []))
    for one in series:
        if len(one["x"]) != len(one["y"]):
            raise ValueError(
                f"plot {plot.get('title')!r}, series {one.get('name')!r}: "
                f"{len(one['x'])} x and {len(one['y'])} y"
            )
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        {"line": _lines, "points": _points, "bar": _bars, "hist": _histogram}[kind](axes, series)
        _finish(axes, plot, series)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _inline(stream.getvalue(), str(plot.get("title", "plot")))


def _color(index: int) -> str:
    return _SERIES[index % len(_SERIES)]


def _lines(axes: Axes, series: Sequence[Mapping[str, Any]]) -> None:
    for index, one in enumerate(series):
        marker = "o" if len(one["x"]) == 1 else ""
        y = [float("nan") if value is None else value for value in one["y"]]
        axes.plot(one["x"], y, color=_color(index), linewidth=1.6, marker=marker)


def _points(axes: Axes, series: Sequence[Mapping[str, Any]]) -> None:
    for index, one in enumerate(series):
        axes.plot(one["x"], one["y"], color=_color(index), linewidth=0.0, marker="o")


def _bars(axes: Axes, series: Sequence[Mapping[str, Any]]) -> None:
    names: list[str] = []
    for one in series:
        names += [str(x) for x in one["x"] if str(x) not in names]
    lying = len(names) > _MANY or any(len(name) > _MANY for name in names)
    thick = 0.8 / max(1, len(series))
    for index, one in enumerate(series):
        at = [names.index(str(x)) + (index - (len(series) - 1) / 2) * thick for x in one["x"]]
        y = [value or 0 for value in one["y"]]
        (axes.barh if lying else axes.bar)(at, y, thick, color=_color(index))
    if lying:
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.figure.set_size_inches(6.4, max(3.2, 0.26 * len(names) + 0.9))  # type: ignore[union-attr]
        axes.grid(False, axis="y")
    else:
        axes.set_xticks(range(len(names)), names)
        axes.grid(False, axis="x")


def _histogram(axes: Axes, series: Sequence[Mapping[str, Any]]) -> None:
    """Draw counts `y` over bins that begin at `x`; the last bin is as wide as the one before."""
    for index, one in enumerate(series):
        x = [float(value) for value in one["x"]]
        if not x:
            continue
        last = x[-1] - x[-2] if len(x) > 1 else 1.0
        axes.stairs(one["y"], [*x, x[-1] + last], fill=True, alpha=0.75, color=_color(index))


def _finish(axes: Axes, plot: Mapping[str, Any], series: Sequence[Mapping[str, Any]]) -> None:
    labels = str(plot.get("x_label", "")), str(plot.get("y_label", ""))
    sideways = plot["kind"] == "bar" and axes.yaxis_inverted()
    x_label, y_label = reversed(labels) if sideways else labels
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if plot.get("x_log"):
        axes.set_xscale("log")
    if plot.get("y_log"):
        axes.set_yscale("log")
    if len(series) > 1:
        handles: list[Any] = [*axes.get_lines(), *axes.containers, *axes.patches][: len(series)]
        axes.legend(handles, [str(one.get("name", "")) for one in series], loc="best")


def _inline(svg: str, title: str) -> str:
    """Return the <svg> element alone, sized by the page, with the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[0-9.]+pt"', "", svg, count=2)
    svg = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
    svg = svg.replace(_INK, "var(--ink)").replace(_RULE, "var(--rule)")
    for index, color in enumerate(_SERIES):
        svg = svg.replace(color, f"var(--c{index})")
    return re.sub(r"(?m)^\s*<!--.*?-->\s*\n?", "", svg)
