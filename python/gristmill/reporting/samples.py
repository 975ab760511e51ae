"""Held-out completions on the page: what stood before, what the model wrote, what was there."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.artifacts import read_json

SHOWN = 12
LINES = 6  # of context before and after the hole


def sample_cards(folder: Path) -> str:
    """Return cards of the first samples of a stage folder; "" where it has none."""
    path = folder / "samples.json"
    if not path.is_file():
        return ""
    found: list[dict[str, Any]] = read_json(path)
    cards = "".join(_card(sample) for sample in found[:SHOWN])
    title = f"{min(SHOWN, len(found))} of {len(found)} held-out completions, in file order"
    return f"<h3>{title}</h3>{cards}"


def _card(sample: Mapping[str, Any]) -> str:
    exact = bool(sample["exact"])
    state = "ok" if exact else "failed"
    head = (
        f"<div class={state}><span class=dot></span>{'exact' if exact else 'differs'} · "
        f"{html.escape(str(sample['kind']))} · "
        f"<code>{html.escape(str(sample['path']))}</code></div>"
    )
    before = "\n".join(str(sample["prefix"]).split("\n")[-LINES:])
    after = "\n".join(str(sample["suffix"]).split("\n")[:LINES])
    model = _code(before, str(sample["completion"]), after, "")
    truth = _code(before, str(sample["truth"]), after, " class=truth")
    return f"<div class=sample>{head}<div class=two style='padding:0'>{model}{truth}</div></div>"


def _code(before: str, middle: str, after: str, kind: str) -> str:
    return (
        f"<pre><span class=dim>{html.escape(before)}</span><mark{kind}>{html.escape(middle)}</mark>"
        f"<span class=dim>{html.escape(after)}</span></pre>"
    )
