"""The page: every stage with what it does, why, your numbers, gates, plots, tables, hashes."""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from gristmill import energy
from gristmill.artifacts import MANIFEST, atomic_write, json_text, read_json
from gristmill.reporting.plots import draw
from gristmill.reporting.samples import sample_cards

STAGES = (
    *("01_collect", "02_clean", "03_annotate", "04_split", "05_design", "06_initialize"),
    *("07_train", "08_validate", "09_save", "10_test", "11_deploy"),
)
REACTION = "reaction.json"  # of a run with validate.react
ROWS = 200  # of a table on the page; the artefact beside it has them all


def write_report(run: Path) -> Path:
    """Write report.html of a run folder from its stages' report.json; returns its path.

    Raises ArtifactError for a missing manifest, StorageError where it cannot be written.
    """
    record = read_json(run / "run.json")
    labels = sorted({*STAGES, *record["stages"]}) if _usual(record) else sorted(record["stages"])
    present = [label for label in labels if (run / label / MANIFEST).is_file()]
    manifests = {label: read_json(run / label / MANIFEST) for label in present}
    sections = [_section_of(str((run / label).resolve()), label) for label in present]
    body = "\n".join(
        [
            _header(run.name, record, manifests),
            _navigation(labels, manifests),
            "<main>",
            _overview(manifests),
            _reaction(run / REACTION),
            *sections,
            _configuration(record["config"]),
            "</main>",
            _footer(manifests),
        ]
    )
    _write(run / "report.html", run.name, body)
    return run / "report.html"


def write_page(path: Path, title: str, lead: str, sections: Sequence[Mapping[str, Any]]) -> None:
    """Write a page of its own: sections with title and, as a stage's report has them, text,
    numbers, plots and tables. Raises StorageError.
    """
    head = f"<h1>{html.escape(title)}</h1><p class=soft>{html.escape(lead)}</p>"
    parts = [f"<header>{head}</header><main>"]
    for section in sections:
        name = html.escape(str(section["title"]))
        parts += [
            f"<section><div class=head><h2>{name}</h2></div>",
            f"<p class=summary>{html.escape(str(section.get('text', '')))}</p>",
            _tiles(section.get("numbers", {})),
            _plots(section.get("plots", [])),
            *(_table(table) for table in section.get("tables", [])),
            "</section>",
        ]
    _write(path, title, "\n".join([*parts, "</main>"]))


def _write(path: Path, title: str, body: str) -> None:
    style = (resources.files("gristmill.reporting") / "style.css").read_text("utf-8")
    page = _PAGE.format(title=html.escape(title), style=style, body=body)
    atomic_write(path, page.encode("utf-8", "replace"))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title} · gristmill</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _usual(record: Mapping[str, Any]) -> bool:
    return all(label in STAGES for label in record["stages"])


def _header(name: str, record: Mapping[str, Any], manifests: Mapping[str, Any]) -> str:
    seconds = sum(manifest["seconds"] for manifest in manifests.values())
    first = next(iter(manifests.values()), None)
    where = ""
    if first:
        machine = first["machine"]
        where = (
            f"{machine['processor']}, {machine['cores']} cores, "
            f"{machine['memory_bytes'] / 2**30:.0f} GiB · begun {first['begun']}"
        )
    title = html.escape(record["name"])
    return (
        f"<header><h1>{title}</h1><p class=soft>run <code>{html.escape(name)}</code> · "
        f"{len(manifests)} stages, {_duration(seconds)} of work{_energy(manifests)}<br>"
        f"{html.escape(where)}</p></header>"
    )


def _energy(manifests: Mapping[str, Any]) -> str:
    """Return the energy of all stages; estimated where that of one is."""
    spent = [manifest["energy"] for manifest in manifests.values()]
    if not spent or any(one["joules"] is None for one in spent):
        return ""
    said = "estimated" if any(one.get("estimated") for one in spent) else "measured"
    return f", {sum(one['joules'] for one in spent) / 3600:.3g} Wh ({said})"


def _navigation(labels: Sequence[str], manifests: Mapping[str, Any]) -> str:
    links = []
    for label in labels:
        state = "todo"
        if label in manifests:
            state = "ok" if _passed(manifests[label]) else "failed"
        links.append(
            f'<a class={state} href="#{label}"><span class=dot></span>{html.escape(label[3:])}</a>'
        )
    return f"<header style='padding-top:0'><nav>{''.join(links)}</nav></header>"


def _overview(manifests: Mapping[str, Any]) -> str:
    """Return the run on one screen: what each stage made of what it was given."""
    rows = [
        [label[3:], m["summary"], "passed" if _passed(m) else "FAILED", _duration(m["seconds"])]
        for label, m in manifests.items()
    ]
    table = {"title": "In short", "columns": ["stage", "result", "gates", "time"], "rows": rows}
    return f"<section>{_table(table)}</section>" if rows else ""


def _reaction(path: Path) -> str:
    """The trainings that a verdict asked for, and which of them was kept."""
    rounds = read_json(path) if path.is_file() else []
    if not rounds:
        return ""
    rows = []
    for one in rounds:
        changes = ", ".join(f"{key} = {value:g}" for key, value in one["changes"].items())
        d = one["difference"]
        kept = "kept" if one["kept"] else "left"
        rows.append([one["run"], one["because"], changes, one["bits_per_byte"],
                     d["value"], d["low"], d["high"], kept])  # fmt: skip
    columns = ["run", "because of", "changes", "bits per byte", "difference", "low", "high", ""]
    table = {"title": "Trained again (validate.react)", "columns": columns, "rows": rows}
    return f"<section>{_table(table)}</section>"


def _passed(manifest: Mapping[str, Any]) -> bool:
    return all(gate["passed"] for gate in manifest["gates"])


@functools.lru_cache(maxsize=64)
def _section_of(folder: str, label: str) -> str:
    """Return the section of one finished stage; a finished stage never changes, so it is kept."""
    path = Path(folder)
    manifest, report = read_json(path / MANIFEST), read_json(path / "report.json")
    passed = _passed(manifest)
    verdict = "passed" if passed else "did not pass (recorded)"
    parts = [
        f'<section id="{label}"><div class=head><span class=step>{label[:2]}</span>'
        f"<h2>{html.escape(label[3:])}</h2><span class='verdict {'ok' if passed else 'failed'}'>"
        f"<span class=dot></span>{verdict} · {_duration(manifest['seconds'])}</span></div>",
        f"<p class=summary>{html.escape(str(report['summary']))}</p>",
        _what_and_why(report),
        _tiles(report.get("numbers", {})),
        _gates(report["gates"]),
        _plots(report.get("plots", [])),
        *(_table(table) for table in report.get("tables", [])),
        sample_cards(path),
        _origin(manifest),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _what_and_why(report: Mapping[str, Any]) -> str:
    rows = [
        f"<dt>{name}</dt><dd>{html.escape(str(report[name]))}</dd>"
        for name in ("what", "why")
        if report.get(name)
    ]
    return f"<dl class=why>{''.join(rows)}</dl>" if rows else ""


def _tiles(numbers: Mapping[str, Any]) -> str:
    tiles = [
        f"<div class=tile><b>{html.escape(show(value))}</b><span>{html.escape(label)}</span></div>"
        for label, value in numbers.items()
    ]
    return f"<div class=tiles>{''.join(tiles)}</div>" if tiles else ""


def _gates(gates: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            gate["name"],
            gate["value"],
            gate["bar"],
            "passed" if gate["passed"] else "FAILED",
            gate["file"],
        ]
        for gate in gates
    ]
    columns = ["gate", "value", "bar", "verdict", "file"]
    return _table({"title": "Gates", "columns": columns, "rows": rows}) if rows else ""


def _plots(plots: Sequence[Mapping[str, Any]]) -> str:
    figures = [
        f"<figure><figcaption>{html.escape(str(plot.get('title', '')))}</figcaption>"
        f"{draw(plot)}</figure>"
        for plot in plots
    ]
    return f"<div class=plots>{''.join(figures)}</div>" if figures else ""


def _table(table: Mapping[str, Any]) -> str:
    rows = list(table["rows"])
    first = rows[0] if rows else table["columns"]
    head = "".join(
        f"<th{_kind(value)}>{html.escape(str(column))}</th>"
        for column, value in zip(table["columns"], first, strict=False)
    )
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows[:ROWS])
    title = html.escape(str(table.get("title", "")))
    more = f"<p class=soft>{len(rows) - ROWS} further rows</p>" if len(rows) > ROWS else ""
    shown = f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>{more}"
    if len(rows) > 15:
        return f"<details><summary>{title} ({len(rows)} rows)</summary>{shown}</details>"
    return f"<h3>{title}</h3>{shown}"


def _cell(value: Any) -> str:
    return f"<td{_kind(value)}>{html.escape(show(value))}</td>"


def _kind(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return " class=number" if number else ""


def show(value: Any) -> str:
    """Return a value as people read it: 1,234,567 and 0.01235; None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(show(item) for item in value)
    return str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _origin(manifest: Mapping[str, Any]) -> str:
    spent = energy.shown(manifest["energy"])
    files = [[name, entry["bytes"], entry["sha256"]] for name, entry in manifest["outputs"].items()]
    table = _table({"title": "Files", "columns": ["file", "bytes", "sha256"], "rows": files[:ROWS]})
    return (
        f"<details><summary>{len(files)} files</summary>{table}</details>"
        f"<p class=hash>key {manifest['key']} · outputs {manifest['digest']} · "
        f"{html.escape(manifest['code'])} · {html.escape(spent)}</p>"
    )


def _configuration(config: Mapping[str, Any]) -> str:
    return (
        '<section id="config"><div class=head><h2>Configuration</h2></div>'
        "<p class=soft>Every key with its value, defaults written out.</p>"
        f"<details><summary>show</summary><pre>{html.escape(json_text(config))}</pre></details>"
        "</section>"
    )


def _footer(manifests: Mapping[str, Any]) -> str:
    digests = [manifest["digest"] for manifest in manifests.values()]
    last = f"last digest <code>{digests[-1]}</code>" if digests else "no stage is done"
    return f"<footer>Written by gristmill from the artefacts of this run; {last}.</footer>"
