"""One page for a ladder: its figures, a roofline, and every step's source. Self-contained HTML."""

from __future__ import annotations

import html
import io
import re
from pathlib import Path

import numpy as np

from gristmill.backend import _C
from gristmill.lab import benches, plots
from gristmill.lab.ladder import Climb, Rung
from gristmill.lab.steps import steps
from gristmill.lab.trials import SIZES, trial

# operations for each byte that is read or written; those of init are some 60 a number
OPERATIONS = {"layernorm": 1.0, "adamw": 0.5, "init": 15.0}
_WORDS = (
    "auto bool const constexpr double else extern float for if inline int int32_t int64_t namespace"
    " nullptr return static struct template thread_local uint16_t uint32_t uint64_t using void"
)
_CODE = re.compile(
    r"(?P<c>//[^\n]*)|(?P<s>&quot;.*?&quot;)|(?P<p>^#\w+)"
    rf"|(?P<k>\b(?:{'|'.join(_WORDS.split())})\b)|(?P<n>\b\d[\w.']*)",
    re.MULTILINE,
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
table { border-collapse: collapse; width: 100% } th { text-align: left }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #ddd } td.f { text-align: right }
pre { background: #f6f6f4; padding: .8rem; overflow-x: auto; font-size: 13px; line-height: 1.35 }
.c { color: #6a737d } .s { color: #22863a } .p { color: #6f42c1 } .k { color: #a33 }
.n { color: #05c }
dt { font-weight: 600 } dd { margin: 0 0 .4rem 1rem } svg { max-width: 100%; height: auto }
"""


def highlighted(code: str) -> str:
    """C++ as HTML: comments, strings, directives, words of the language and numbers in colour."""

    def marked(match: re.Match[str]) -> str:
        return f'<span class="{match.lastgroup}">{match.group()}</span>'

    return _CODE.sub(marked, html.escape(code))


def write(climbed: Climb, file: Path) -> None:
    """Write the page. Raises MissingExtraError without matplotlib."""
    title = f"The ladder of {climbed.op}"
    sizes = "x".join(map(str, climbed.shape))
    ceilings = "; ".join(f"{n}: {r:.1f} {climbed.unit}/s" for n, r in climbed.ceilings.items())
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        f"<style>{_STYLE}</style><h1>{title}</h1>",
        f"<p>{SIZES[climbed.op]} = {sizes}, table {climbed.table}. Ceiling, measured in the same "
        f"run: {ceilings}. Every step was verified against the twin before it was timed.</p>",
        _table(climbed),
        roofline(climbed),
    ]
    for step in steps(climbed.op):
        said = [("Why", step.why), ("Look at", step.look), ("Takes", step.takes)]
        terms = "".join(f"<dt>{n}<dd>{html.escape(text)}" for n, text in said)
        code = step.text[step.text.index("#include") :]
        parts.append(
            f'<h2 id="s{step.number}">{step.number} {step.name}</h2><p>{html.escape(step.idea)}</p>'
            f"<dl>{terms}</dl><pre>{highlighted(code)}</pre>"
        )
    file.write_text("\n".join(parts) + "\n", "utf-8")


def _table(climbed: Climb) -> str:
    head = f"<tr><th>step<th>ms<th>{climbed.unit}/s<th>of ceiling<th>factor<th>what it taught"
    return f"<table>{head}{''.join(_row(rung) for rung in climbed.rungs)}</table>"


def _row(rung: Rung) -> str:
    name = f"{rung.number} {rung.name}" if rung.number else rung.name
    name += f", {rung.threads} threads" if rung.threads > 1 else ""
    if rung.number:
        name = f'<a href="#s{rung.number}">{name}</a>'
    if rung.problem:
        return f"<tr><td>{name}<td colspan=4>not measured<td>{html.escape(rung.problem)}"
    factor = f"{rung.factor:.2f}" if rung.factor else ""
    figures = (
        f"{rung.milliseconds:.3f}",
        f"{rung.rate:.1f}",
        f"{100 * rung.of_ceiling:.1f} %",
        factor,
    )
    cells = "".join(f"<td class=f>{text}" for text in figures)
    return f"<tr><td>{name}{cells}<td>{html.escape(rung.taught)}"


def roofline(climbed: Climb) -> str:
    """An SVG: GFLOP/s over operations a byte, below what compute and memory allow on one thread.

    All rungs do the same work on the same bytes, so they stand above each other.
    """
    pyplot = plots.library()
    made = trial(climbed.op, climbed.shape)
    compute = made.bound_by == "compute"
    across = 1e9 * climbed.amount / made.bytes if compute else OPERATIONS[climbed.op]
    peak, bandwidth = _roofs()
    figure, axes = pyplot.subplots(figsize=(8.5, 4.6))
    x = np.geomspace(min(across, peak / bandwidth) / 4, max(across, peak / bandwidth) * 4, 64)
    axes.loglog(x, np.minimum(peak, bandwidth * x), color="#555")
    axes.annotate(f"{peak:.0f} GFLOP/s", (x[-1], peak), ha="right", va="bottom")
    axes.annotate(f"{bandwidth:.1f} GB/s", (x[0], bandwidth * x[0]), ha="left", va="bottom")
    for rung in climbed.rungs:
        if not rung.problem:
            y = rung.rate if compute else rung.rate * across
            axes.plot(
                across, y, "o" if rung.number else "D", color="#4a7" if rung.number else "#c63"
            )
            axes.annotate(
                f"  {rung.number or ''} {rung.name}", (across, y), va="center", fontsize=7
            )
    axes.set_xlabel("operations for a byte that memory must move")
    axes.set_ylabel("GFLOP/s")
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight")
    pyplot.close(figure)
    drawn = re.sub(r"<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL)
    return drawn[drawn.index("<svg") :]


def _roofs() -> tuple[float, float]:
    """GFLOP/s out of registers and GB/s read from memory, by one thread."""
    ceiling, before = benches.load("ceiling"), _C.threads()
    _C.set_threads(1)
    try:
        compute, read = ceiling.compute_ceiling(1e9), ceiling.stream_ceiling(1, 0, 1 << 24)
        return max(1 / compute() for _ in range(3)), max(
            4 * 2**24 * 1e-9 / read() for _ in range(3)
        )
    finally:
        _C.set_threads(before)
