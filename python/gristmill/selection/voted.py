"""What people thought of answers, as documents to train on.

A line of feedback.jsonl (serving/feedback.py) has request and answer. An edit to ideal becomes the
text it would have been: what stood before, the ideal, what stood after, both cut to `characters`.
An answer with thumbs up does too where that is wanted; one with thumbs down is left out. Every line
is counted, with the reason where it gives nothing; one that cannot be read too.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.serving.request_log import damaged, entries

FEEDBACK = "feedback.jsonl"
AHEAD = 3600.0  # seconds that the clock of a server may be ahead of this one


@dataclass
class Votes:
    """Documents out of votes: text or messages by id; what became of every vote."""

    texts: list[tuple[str, str]] = field(default_factory=list)
    chats: list[tuple[str, list[dict[str, str]]]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    until: float = 0.0  # time of the newest vote


def read_votes(path: Path, after: float, accepted: bool, characters: int, chat: bool) -> Votes:
    """Return the votes later than `after`; of several on one answer the last one counts.

    chat: whether the model is trained on conversations; votes on the other kind are left out.
    """
    last: dict[str, dict[str, Any]] = {}
    found = Votes(until=after)
    if path.is_file():
        for entry in entries(path):
            last[str(entry.get("id"))] = entry
        if torn := damaged(path):  # a crash, a full disk: the last of them was never confirmed
            found.counts["lines that cannot be read"] = torn
    newest = time.time() + AHEAD
    for id, vote in last.items():
        given = vote.get("time")
        if not isinstance(given, int | float) or not math.isfinite(given):
            found.counts["not a vote"] += 1
        elif given > newest:  # taken, it would hide all votes until then
            found.counts["left out: its time is still to come"] += 1
        elif given > after:
            found.until = max(found.until, float(given))
            _take(found, id, vote, accepted, characters, chat)
    return found


def _take(
    found: Votes, id: str, vote: dict[str, Any], accepted: bool, characters: int, chat: bool
) -> None:
    wanted, said = _wanted(vote, accepted)
    if not wanted:
        found.counts[said] += 1
        return
    request = vote.get("request")
    request = request if isinstance(request, dict) else {}
    if ("messages" in request) != chat:
        other = "a completion, and the model" if chat else "a chat, and the model"
        learns = "conversations" if chat else "texts"
        found.counts[f"left out: {other} is trained on {learns}"] += 1
        return
    if chat:
        messages = _messages(request["messages"])
        if messages is None:
            found.counts["left out: messages that cannot be read"] += 1
            return
        found.chats.append((id, [*messages, {"role": "assistant", "content": wanted}]))
    else:
        around = _around(request)
        if around is None:
            found.counts["left out: the prompt is token ids or several texts"] += 1
            return
        before, after = around
        if request.get("echo"):  # then the answer begins with the prompt
            wanted = wanted.removeprefix(before)
        before = before[-characters:] if characters else ""
        found.texts.append((id, f"{before}{wanted}{after[:characters]}"))
    found.counts[said] += 1


def _wanted(vote: dict[str, Any], accepted: bool) -> tuple[str, str]:
    """Return the text to learn, "" for none, and what that is called in the counts."""
    ideal, rating = vote.get("ideal"), vote.get("rating")
    if isinstance(ideal, str) and ideal.strip():
        return ideal, "edited"
    if rating == "down":
        return "", "left out: thumbs down"
    if rating != "up":
        return "", "left out: no opinion"
    if not accepted:
        return "", "left out: thumbs up (update.accepted is false)"
    answers = vote.get("answer")
    given = answers if isinstance(answers, list) else []
    texts = [answer.get("text") for answer in given if isinstance(answer, dict)]
    if len(texts) == 1 and isinstance(texts[0], str) and texts[0].strip():
        return texts[0], "accepted"
    return "", "left out: thumbs up for no answer, or for several"


def _messages(given: Any) -> list[dict[str, str]] | None:
    """Return messages of text alone, as they are trained on."""
    found = []
    for message in given if isinstance(given, list) else [None]:
        if not isinstance(message, dict):
            return None
        content = message.get("content")
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            content = "".join(part for part in parts if isinstance(part, str))
        if not isinstance(content, str):
            return None
        role = {"developer": "system"}.get(str(message.get("role")), str(message.get("role")))
        found.append({"role": role, "content": content})
    return found


def _around(request: dict[str, Any]) -> tuple[str, str] | None:
    """Return what stood before and after the answer, of a completion or an infill."""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    infill = request.get("input_prefix") or request.get("input_suffix")
    if not isinstance(prompt, str) and not (prompt is None and infill):
        return None
    prefix, suffix = request.get("input_prefix") or "", request.get("input_suffix") or ""
    return f"{prefix}{prompt or ''}", f"{suffix}{request.get('suffix') or ''}"
