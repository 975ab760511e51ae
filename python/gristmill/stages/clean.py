"""Stage 2: ordered steps; every removed row in a ledger, every replaced value in an audit.

Gate: kept + removed = input, counted again on the written files.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gristmill.artifacts import Gate, Result, StageContext, sha256_file, write_json
from gristmill.data import cleaning, private
from gristmill.data.cleaning import Cleaned
from gristmill.data.document import (
    read_documents,
    read_removals,
    write_documents,
    write_removals,
)
from gristmill.data.evaluation_sets import files_of
from gristmill.data.prose_settings import ContaminationStep
from gristmill.data.table import write_table

if TYPE_CHECKING:
    from gristmill.config import Config


def fingerprint(config: Config) -> list[str]:
    """Return the digests of the evaluation sets: another set makes another run."""
    steps = [step for step in config.clean.step if isinstance(step, ContaminationStep)]
    return [sha256_file(file) for step in steps for given in step.set for file in files_of(given)]


def run(ctx: StageContext) -> Result:
    """Write documents, removed, audit and repairs (.parquet), transforms.json and steps.json; where
    evaluation sets are named, contamination.parquet.
    """
    documents = read_documents(ctx.input("collect") / "documents.parquet", cluster=False)
    done = cleaning.clean(documents, ctx.config.clean.step, ctx.seed, ctx.progress)
    ctx.progress("writing documents")
    write_documents(ctx.out / "documents.parquet", done.documents)
    write_removals(ctx.out / "removed.parquet", done.removed)
    write_table(ctx.out / "audit.parquet", private.AUDIT_SCHEMA, done.audit)
    write_table(ctx.out / "repairs.parquet", cleaning.REPAIR_SCHEMA, done.repairs)
    if done.sets:
        rows = done.contamination
        write_table(ctx.out / "contamination.parquet", cleaning.CONTAMINATION_SCHEMA, rows)
        write_json(ctx.out / "sets.json", done.sets)
    write_json(ctx.out / "transforms.json", done.transforms)
    write_json(ctx.out / "steps.json", [asdict(step) for step in done.steps])
    kept = len(read_documents(ctx.out / "documents.parquet"))
    removed = len(read_removals(ctx.out / "removed.parquet"))
    off = abs(len(documents) - kept - removed)
    gate = Gate("|input - kept - removed|, rows", off, 0, off == 0, "removed.parquet")
    summary = f"{len(documents):,} in, {kept:,} kept, {removed:,} removed"
    summary += f", {len(done.audit):,} values masked" if done.audit else ""
    return Result(summary, [gate], _report(len(documents), done))


def _report(rows_in: int, done: Cleaned) -> dict[str, Any]:
    rules = Counter((row.step, row.rule, row.threshold) for row in done.removed)
    masked = Counter(row[3] for row in done.audit)
    repaired: Counter[str] = Counter()
    for row in done.repairs:
        repaired[row[4]] += row[5]
    clusters = Counter(document.cluster for document in done.documents)
    return {
        "what": "Texts are repaired; generated, broken and repeated files go; personal data and "
        "secrets become tokens. Each removed file stands in removed.parquet with its rule.",
        "why": "A model learns what is repeated most, and repeats what it learned: copies in two "
        "splits would flatter every later figure, and a password would be completed.",
        "numbers": {
            "files in": rows_in,
            "kept": len(done.documents),
            "removed": len(done.removed),
            "MB kept": round(sum(len(d.text) for d in done.documents) / 1e6, 2),
            "clusters of several files": sum(size > 1 for size in clusters.values()),
            "values masked": len(done.audit),
            "repairs": sum(repaired.values()),
        },
        "plots": _plots(rows_in, done),
        "tables": [
            {
                "title": "Steps",
                "columns": ["step", "files in", "removed", "changed"],
                "rows": [[s.step, s.rows_in, s.removed, s.changed] for s in done.steps],
            },
            {
                "title": "Removed, by rule",
                "columns": ["step", "rule", "allowed", "files"],
                "rows": [[*rule, count] for rule, count in sorted(rules.items())],
            },
            {
                "title": "Removed, examples",
                "columns": ["file", "rule", "value"],
                "rows": [[row.path, row.rule, row.value] for row in done.removed[:10]],
            },
            {
                "title": "Masked and repaired",
                "columns": ["what", "places"],
                "rows": [[what, n] for what, n in sorted((masked + repaired).items())],
            },
            *_contamination(done),
        ],
    }


def _contamination(done: Cleaned) -> list[dict[str, Any]]:
    """Return what of the named evaluation sets stands in the documents."""
    if not done.sets:
        return []
    columns = list(done.sets[0])
    said = {"remove": "removed", "list": "kept"}
    rows = [
        [name, place, text, f"{source}/{path}", shared, said[action]]
        for _, name, place, text, source, path, shared, action in done.contamination[:50]
    ]
    return [
        {
            "title": "Named evaluation sets",
            "columns": columns,
            "rows": [[given[name] for name in columns] for given in done.sets],
        },
        {
            "title": "Contaminated examples (all in contamination.parquet)",
            "columns": ["set", "example", "begins", "document", "shared run", "document is"],
            "rows": rows,
        },
    ]


def _plots(rows_in: int, done: Cleaned) -> list[dict[str, Any]]:
    left = [rows_in, *(step.rows_in - step.removed for step in done.steps)]
    plots: list[dict[str, Any]] = [
        {
            "title": "Files left after each step",
            "kind": "bar",
            "x_label": "step",
            "y_label": "files",
            "series": [{"name": "files", "x": ["in", *(s.step for s in done.steps)], "y": left}],
        }
    ]
    if done.similarities:
        bins = [round(0.3 + 0.05 * index, 2) for index in range(14)]
        counts = [sum(low <= s < low + 0.05 for s in done.similarities) for low in bins]
        counts[-1] += sum(s >= bins[-1] + 0.05 for s in done.similarities)
        plots.append(
            {
                "title": "Similar pairs of files",
                "kind": "bar",
                "x_label": "Jaccard similarity, from",
                "y_label": "pairs",
                "series": [{"name": "pairs", "x": [f"{low:.2f}" for low in bins], "y": counts}],
            }
        )
    return plots
