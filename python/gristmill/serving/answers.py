"""What a request gives: its choices as they grow, and how they stand in the log."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from .decode import Finish, Piece
from .scores import Score

RECENT = 256  # requests whose answers are remembered,
RECENT_BYTES = 65536  # each of at most so many; others are looked up in the log


class Choice:
    """One answer to one prompt; `logged` is how the request log has it, up to date at any time."""

    def __init__(self, echo: str = "") -> None:
        self.logged: dict[str, Any] = {"text": echo, "finish_reason": None, "tokens": []}
        self.scores: list[Score] = []
        self.finish: Finish | None = None

    @property
    def text(self) -> str:
        """The text so far, behind the echoed prompt where one was asked for."""
        return str(self.logged["text"])

    def add(self, event: Piece | Finish) -> None:
        """Take the next event of this choice."""
        if isinstance(event, Finish):
            self.finish = event
            self.logged["finish_reason"] = event.reason
        else:
            self.logged["text"] += event.text
            self.logged["tokens"] += event.ids
            self.scores += event.scores

    def ended(self) -> Finish:
        """The last event; every choice of a whole answer has it."""
        assert self.finish is not None
        return self.finish


class Recent:
    """The last answered requests by id, so that a vote need not wait for the log."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def keep(self, entry: dict[str, Any]) -> None:
        """Remember one entry, forget the oldest."""
        self._entries[entry["id"]] = entry
        while len(self._entries) > RECENT:
            self._entries.popitem(last=False)

    def get(self, id: str) -> dict[str, Any] | None:
        """The entry of a recent request, or None."""
        return self._entries.get(id)


def understood(body: BaseModel, **resolved: Any) -> dict[str, Any]:
    """The request's own fields with what the server chose for those left open (the seed, ...).

    Sent again as a body it gives the same answer; fields that were ignored are not in it.
    """
    given = body.model_dump(exclude_none=True, include=set(type(body).model_fields))
    return {**given, **resolved}


def usage(finishes: Sequence[Finish], prompts: int) -> dict[str, Any]:
    """OpenAI's counts; a prompt counts once for all its choices."""
    per_prompt = finishes[:: max(1, len(finishes) // prompts)]
    prompt = sum(finish.prompt_tokens for finish in per_prompt)
    answer = sum(finish.completion_tokens for finish in finishes)
    cached = sum(finish.cached_tokens for finish in per_prompt)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
