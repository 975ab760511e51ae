"""Stage 1: read the sources into a content-addressed store, one document per file or table row.

Gates: every row keeps the schema; no group of sources falls short of what the mixture asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gristmill.artifacts import Gate, Result, StageContext, write_json
from gristmill.data import collecting, quality
from gristmill.data.collecting import Collected
from gristmill.data.document import write_documents
from gristmill.data.repeats import MIXTURE
from gristmill.data.store import Store

if TYPE_CHECKING:
    from gristmill.config import Config


def fingerprint(config: Config) -> list[Any]:
    """Return what the sources hold now: changed files make another run."""
    return collecting.fingerprint(config.collect)


def run(ctx: StageContext) -> Result:
    """Write raw/, documents.parquet, sources.json, mixture.json and quality.json."""
    store = Store(ctx.out / "raw")
    collected = collecting.collect(ctx.config.collect, store, ctx.seed, ctx.progress)
    ctx.progress("writing documents")
    table = ctx.out / "documents.parquet"
    write_documents(table, collected.documents, cluster=False)
    schema = quality.check_schema(table, store)
    described = {**quality.describe(collected), "schema": schema}
    write_json(ctx.out / "sources.json", collected.sources)
    write_json(ctx.out / MIXTURE, collected.mixture)
    write_json(ctx.out / "quality.json", described)
    violations = sum(rule["violations"] for rule in schema)
    gates = [Gate("schema violations", violations, 0, violations == 0, "quality.json")]
    if collected.mixture["bytes_asked"]:
        short, bar = collected.shortfall, ctx.config.collect.mix.max_short
        name = "share that a group lacks of what was asked"
        gates.append(Gate(name, short, bar, short <= bar, MIXTURE))
    skipped, faulty = described["skipped"]["files"], described["skipped"]["faulty"]
    size = described["bytes"] / 1e6
    summary = f"{len(collected.documents):,} files, {size:.1f} MB; {skipped:,} left out"
    summary += f", {faulty} faulty" if faulty else ""
    return Result(summary, gates, _report(collected, described))


def _report(collected: Collected, described: dict[str, Any]) -> dict[str, Any]:
    lengths, mixture = described["lengths"], collected.mixture
    faulty = [row for row in collected.skipped if row.fault]
    return {
        "what": "Every text file of the sources is read once and kept under the sha256 of its "
        "bytes, every row of a table under that of its text; each has its source, licence and "
        "time. Where a mixture is asked for, a seeded sample of each group is taken.",
        "why": "Whatever the model says later can be traced to files that were allowed to be used, "
        "and the same files give the same run.",
        "numbers": {
            "files": described["documents"],
            "MB": round(described["bytes"] / 1e6, 2),
            "lines": described["lines"],
            "exact duplicates": described["duplicates"]["files"],
            "left out": described["skipped"]["files"],
            "faulty": described["skipped"]["faulty"],
        },
        "plots": [
            {
                "title": "Length of the files",
                "kind": "bar",
                "x_label": "characters, up to",
                "y_label": "files",
                "series": [
                    {
                        "name": "files",
                        "x": [*map(str, lengths["edges"][1:]), "more"],
                        "y": lengths["counts"],
                    }
                ],
            },
            *_mixture_plot(mixture),
        ],
        "tables": [
            {
                "title": "Sources",
                "columns": ["source", "kind", "files", "MB", "licence", "why"],
                "rows": [
                    [s["name"], s["kind"], s["files"], s["bytes"] / 1e6, s["licence"], s["why"]]
                    for s in collected.sources
                ],
            },
            *_mixture_table(mixture),
            _counted("Encodings", "encoding", described["by"]["encoding"]),
            _counted("Areas", "area", described["by"]["area"]),
            _counted("Left out (all in quality.json)", "why", described["skipped"]["by_reason"]),
            {
                "title": "Faulty files",
                "columns": ["source", "file", "reason"],
                "rows": [[row.source, row.path, row.reason] for row in faulty[:50]],
            },
        ],
    }


def _mixture_plot(mixture: dict[str, Any]) -> list[dict[str, Any]]:
    groups = mixture["groups"]
    if not mixture["bytes_asked"] and len(mixture["sources"]) == 1:
        return []
    if mixture["bytes_asked"]:
        names = [group["group"] for group in groups]
        bars = {
            "asked": [group["bytes_asked"] / 1e6 for group in groups],
            "got": [group["bytes_with_repeats"] / 1e6 for group in groups],
        }
    else:
        rows = sorted(mixture["sources"], key=lambda row: -row["bytes"])[:15]
        names = [row["source"] for row in rows]
        bars = {"got": [row["bytes"] / 1e6 for row in rows]}
    series = [{"name": name, "x": names, "y": values} for name, values in bars.items()]
    kind = {"kind": "bar", "x_label": "group or source", "y_label": "MB of text"}
    return [{"title": "Mixture", **kind, "series": series}]


def _mixture_table(mixture: dict[str, Any]) -> list[dict[str, Any]]:
    if not mixture["bytes_asked"]:
        return []
    rows = [
        [
            group["group"],
            group["share_asked"],
            group["bytes_asked"] / 1e6,
            group["bytes_with_repeats"] / 1e6,
            group["documents"],
            f"{group['short']:.1%}",
        ]
        for group in mixture["groups"]
    ]
    columns = ["group", "share asked", "MB asked", "MB got", "files", "short"]
    return [{"title": "Mixture (all in mixture.json)", "columns": columns, "rows": rows}]


def _counted(title: str, what: str, counts: dict[str, int]) -> dict[str, Any]:
    rows = [[name, count] for name, count in list(counts.items())[:15]]
    return {"title": title, "columns": [what, "files"], "rows": rows}
