"""`POST /v1/feedback`: what a person thought of an answer, appended to feedback.jsonl.

A line holds request and answer too, so it outlives the rotation of the request log beside it. Who
votes twice has two lines; the later one counts.
"""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

from gristmill.errors import ConfigError

from .answers import Recent
from .http_errors import ApiError
from .limits import Limits
from .request_log import RequestLog, entries, find
from .schema import FeedbackBody

NAME = "feedback.jsonl"
ANSWER = re.compile(r"(cmpl|chatcmpl|infill)-[0-9a-f]{32}")


class Feedback:
    """The votes on the answers that stand in `log`, or are recent."""

    def __init__(self, log: Path | None, recent: Recent, limits: Limits) -> None:
        self._log, self._recent, self._limits = log, recent, limits
        self._file: RequestLog | None = None  # made at the first vote

    @property
    def kept(self) -> bool:
        """Whether this server keeps votes."""
        return self._log is not None

    async def take(self, body: FeedbackBody) -> dict[str, Any]:
        """Append one vote and return it. Raises ApiError where that cannot be."""
        if self._log is None:
            message = "this server keeps no log (--no-log), and so no feedback"
            raise ApiError(400, "feedback_off", message)
        entry = self._recent.get(body.id)
        if entry is None and ANSWER.fullmatch(body.id):
            entry = await asyncio.to_thread(find, self._log, body.id)
        if entry is None or "answer" not in entry:
            message = f"no answer {body.id[:100]!r} in this server's log; send the id of an answer"
            raise ApiError(404, "answer_not_found", message, param="id")
        vote = {"id": body.id, "rating": body.rating, "ideal": body.ideal}
        copied = {key: entry[key] for key in ("model", "endpoint", "request", "answer")}
        line = {"id": body.id, "time": round(time.time(), 3), **vote, **copied}
        await asyncio.to_thread(self._append, self._log.with_name(NAME), line)
        return {"object": "feedback", **vote}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _append(self, path: Path, line: dict[str, Any]) -> None:
        try:
            self._file = self._file or RequestLog(path, most_bytes=None, sync=True)
        except ConfigError as error:
            raise ApiError(500, "feedback_not_kept", str(error)) from None
        if self._file.size > self._limits["feedback_bytes"]:
            message = f"{path} is larger than {self._limits['feedback_bytes']} bytes; move it away"
            raise ApiError(507, "feedback_full", message)
        if not self._file.write(line):
            raise ApiError(500, "feedback_not_kept", f"{path} cannot be written: is the disk full?")


def latest(path: Path) -> dict[str, dict[str, Any]]:
    """The vote that counts of every answer in a feedback file, in the order of the first votes."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries(path):
        found[str(entry.get("id"))] = entry
    return found
