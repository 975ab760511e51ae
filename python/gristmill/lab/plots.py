"""Rows of `gristmill bench` as pictures: bars beside peers and ceiling, a roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.errors import MissingExtraError
from gristmill.lab.comparing import measured

Row = Mapping[str, Any]


def library() -> Any:
    """Matplotlib without a screen. Raises MissingExtraError where it is not installed."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise MissingExtraError(
            "pictures need matplotlib; install it with: pip install 'gristmill[lab]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def write(rows: Sequence[Row], folder: Path, kind: str = "svg") -> list[Path]:
    """OP-bars for each op and number of threads, and a roofline; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    shown = measured(rows)
    for group in dict.fromkeys((r["op"], r["threads"]) for r in shown):
        some = [r for r in shown if (r["op"], r["threads"]) == group]
        written.append(bars(some, folder / f"{group[0]}-{group[1]}-bars.{kind}"))
    for threads in dict.fromkeys(r["threads"] for r in shown):
        some = [r for r in shown if r["threads"] == threads and r.get("intensity")]
        if some:
            written.append(roofline(some, folder / f"roofline-{threads}.{kind}"))
    return written


def bars(rows: Sequence[Row], path: Path) -> Path:
    """For each case ours and every peer in percent of the ceiling (without one: of ours)."""
    pyplot = library()
    sides = ["ours", *dict.fromkeys(name for row in rows for name in row["peers"])]
    height = 0.8 / len(sides)
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.28 * len(rows) * len(sides)))
    for i, side in enumerate(sides):
        lengths = [100 * _share(row, side) for row in rows]
        places = [y + i * height for y in range(len(rows))]
        drawn = axes.barh(places, lengths, height * 0.9, label=side)
        axes.bar_label(drawn, [f"{x:.0f}" if x else "" for x in lengths], padding=2, fontsize=7)
    axes.set_yticks([y + 0.4 - height / 2 for y in range(len(rows))], [r["name"] for r in rows])
    axes.invert_yaxis()
    axes.axvline(100, color="black", linewidth=0.8)
    axes.set_xlabel("% of the machine's limit, measured in the same run")
    threads = rows[0]["threads"]
    title = f"{rows[0]['op']}, {rows[0]['table']}, {threads} thread{'' if threads == 1 else 's'}"
    axes.set_title(title)
    axes.legend(fontsize=8)
    return _save(pyplot, figure, path)


def _share(row: Row, side: str) -> float:
    own = float(row["of_ceiling"] or 1.0)
    if side == "ours":
        return own
    peer = row["peers"].get(side)
    return own / float(peer["ratio"]) if peer else 0.0


def roofline(rows: Sequence[Row], path: Path) -> Path:
    """GFLOP/s over FLOP a byte, under the roofs that the cases' own ceilings give."""
    pyplot = library()
    figure, axes = pyplot.subplots(figsize=(9, 6))
    points = [(row, float(row["intensity"]), _gflops(row)) for row in rows]
    for dtype, colour in (("float32", "C0"), ("bfloat16", "C1")):
        some = [p for p in points if (("bfloat16" in p[0]["name"]) == (dtype == "bfloat16"))]
        if not some:
            continue
        axes.scatter([x for _, x, _ in some], [y for *_, y in some], color=colour, label=dtype)
        peak = [y / row["of_ceiling"] for row, _, y in some if _compute(row)]
        bandwidth = [y / x / row["of_ceiling"] for row, x, y in some if _stream(row)]
        _roof(axes, points, max(peak, default=0), max(bandwidth, default=0), colour)
    for row, x, y in points:
        axes.annotate(f"{row['op']} {row['name']}", (x, y), fontsize=6, xytext=(4, 0),
                      textcoords="offset points")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="FLOP a byte", ylabel="GFLOP/s",
             title=f"roofline, {rows[0]['table']}, threads: {rows[0]['threads']}")  # fmt: skip
    axes.legend()
    return _save(pyplot, figure, path)


def _compute(row: Row) -> bool:
    return bool(row["unit"] == "GFLOP" and row["of_ceiling"])


def _stream(row: Row) -> bool:
    return bool(row["unit"] == "GB" and row["of_ceiling"])


def _gflops(row: Row) -> float:
    rate = float(row["rate"])
    return rate if row["unit"] == "GFLOP" else rate * float(row["intensity"])


def _roof(axes: Any, points: Sequence[Any], peak: float, bandwidth: float, colour: str) -> None:
    left, right = min(x for _, x, _ in points) / 2, max(x for _, x, _ in points) * 2
    if peak:
        axes.plot((left, right), (peak, peak), color=colour, linewidth=0.8)
    if bandwidth:
        end = min(right, peak / bandwidth) if peak else right
        ends = bandwidth * left, bandwidth * end
        axes.plot((left, end), ends, color=colour, linewidth=0.8, linestyle="--")


def _save(pyplot: Any, figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return path
