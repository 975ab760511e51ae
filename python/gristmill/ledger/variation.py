"""Which fields may differ between two runs of one configuration, and whether all else is equal.

Every entry of VARIES is a time, a speed, a count of openings, or a digest over one of these. What
is not listed must be equal, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SPEED = ("seconds_per_step", "seconds_predicted", "tokens_per_second", "steps_timed")
# (stage, file): fields, "/" between levels, "*" for every item of a list; "" is the whole file
VARIES: dict[tuple[str, str], tuple[str, ...]] = {
    # measured; and steps_from, because the steps of the first run are given to the second
    ("design", "design.json"): (
        *SPEED, "peak_flops", "share_of_peak", "memory_free", "steps_from",
    ),
    ("design", "report.json"): (
        "gates/*/bar",  # memory that was free
        "numbers/tokens per second, measured", "numbers/share of the measured matmul peak",
        "numbers/predicted training",
    ),
    ("train", "metrics.jsonl"): ("*/tokens_per_second",),
    ("train", "time.json"): ("seconds", "seconds_predicted", "peak_bytes"),
    ("train", "report.json"): (
        "numbers/seconds in steps", "numbers/predicted by design",
        "numbers/memory at most, whole process",
        "plots",  # one is of the speed; the others show metrics.jsonl, which is compared
    ),
    # how often a split was opened is a fact of the folder of runs, not of the configuration
    ("evaluate", "access.json"): ("here", "earlier", "opened", "split"),
    ("evaluate", "metrics.json"): ("opened",),
    ("evaluate", "report.json"): ("numbers/times this split was opened",),
    # the lineage holds the digests of all of the above
    ("deploy", "model.gguf"): (
        "gristmill.lineage", "gristmill.digest.header", "gristmill.report/metrics/opened",
    ),
    ("deploy", "selftest.json"): ("digest",),
    ("deploy", "report.json"): ("numbers/sha256",),
    ("deploy", "MODEL_CARD.md"): ("",),  # times, energy, lineage
    ("deploy", "DATASHEET.md"): ("",),
}  # fmt: skip


def left_out(stage: str, name: str) -> tuple[str, ...]:
    """Return the fields of a file that may differ; none for a file that may not."""
    return VARIES.get((stage, name), ())


def difference(stage: str, name: str, first: Path, second: Path) -> str:
    """Return where two files differ beyond what may, "" where they are equal."""
    fields = left_out(stage, name)
    if not fields:
        return "" if first.read_bytes() == second.read_bytes() else "other bytes"
    if "" in fields:
        return ""
    found = []
    for path in (first, second):
        value = _content(path)
        for field in fields:
            _drop(value, field.split("/"))
        found.append(value)
    return _first(found[0], found[1], "")


def _content(path: Path) -> Any:
    if path.suffix == ".gguf":
        return _metadata(path)
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return json.loads(text)


def _metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a GGUF; the digest of every tensor is in it, and was just checked."""
    from gristmill import _C

    facts = dict(_C.Model(str(path), True).metadata)
    for key in ("gristmill.report", "gristmill.lineage"):
        facts[key] = json.loads(facts.get(key, "null"))
    return facts


def _drop(value: Any, path: list[str]) -> None:
    """Remove one field; absent ones are no matter."""
    head, *rest = path
    if head == "*":
        for item in value:
            _drop(item, rest)
    elif isinstance(value, dict) and head in value:
        if rest:
            _drop(value[head], rest)
        else:
            del value[head]


def _first(one: Any, two: Any, where: str) -> str:
    """Return the first place where two values differ, with both; "" where they are equal."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for key in sorted({*one, *two}):
            if key not in one or key not in two:
                return f"{where}/{key} only in the {'second' if key not in one else 'first'}"
            if found := _first(one[key], two[key], f"{where}/{key}"):
                return found
        return ""
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True))
        return next((d for i, (a, b) in pairs if (d := _first(a, b, f"{where}/{i}"))), "")
    return "" if one == two else f"{where or '/'} is {_short(one)}, again {_short(two)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
