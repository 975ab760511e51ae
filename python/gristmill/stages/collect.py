"""Stage 1: read the sources into a content-addressed store, one document per file.

Gate: every row keeps the schema.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gristmill.artifacts import Gate, Result, StageContext, write_json
from gristmill.data import collecting, quality
from gristmill.data.collecting import Collected
from gristmill.data.document import write_documents
from gristmill.data.store import Store

if TYPE_CHECKING:
    from gristmill.config import Config


def fingerprint(config: Config) -> list[Any]:
    """Return what the sources hold now: changed files make another run."""
    return collecting.fingerprint(config.collect)


def run(ctx: StageContext) -> Result:
    """Write raw/, documents.parquet, sources.json and quality.json."""
    store = Store(ctx.out / "raw")
    collected = collecting.collect(ctx.config.collect, store, ctx.seed, ctx.progress)
    ctx.progress("writing documents")
    table = ctx.out / "documents.parquet"
    write_documents(table, collected.documents, cluster=False)
    schema = quality.check_schema(table, store)
    described = {**quality.describe(collected), "schema": schema}
    write_json(ctx.out / "sources.json", collected.sources)
    write_json(ctx.out / "quality.json", described)
    violations = sum(rule["violations"] for rule in schema)
    gate = Gate("schema violations", violations, 0, violations == 0, "quality.json")
    skipped, faulty = described["skipped"]["files"], described["skipped"]["faulty"]
    size = described["bytes"] / 1e6
    summary = f"{len(collected.documents):,} files, {size:.1f} MB; {skipped:,} left out"
    summary += f", {faulty} faulty" if faulty else ""
    return Result(summary, [gate], _report(collected, described))


def _report(collected: Collected, described: dict[str, Any]) -> dict[str, Any]:
    lengths = described["lengths"]
    faulty = [row for row in collected.skipped if row.fault]
    return {
        "what": "Every text file of the sources is read once and kept under the sha256 of its "
        "bytes; each has its source, licence and time.",
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
            }
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


def _counted(title: str, what: str, counts: dict[str, int]) -> dict[str, Any]:
    rows = [[name, count] for name, count in list(counts.items())[:15]]
    return {"title": title, "columns": [what, "files"], "rows": rows}
