"""A logged request again: the same bytes, or why not.

The line of the log holds the request as the server understood it, with the seed it chose; what the
model answers is a function of that and of the weights alone, whatever was running beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, cast

from pydantic import ValidationError

from . import chat_completions, completions, infill
from .answers import Choice
from .chat_format import ChatFormat
from .decode import Finish, Piece, Task, decode
from .engine import Engine
from .http_errors import ApiError
from .limits import TABLE, Limits
from .metrics import Metrics
from .runtime import Runtime, Slot
from .schema import ChatBody, CompletionBody, InfillBody
from .service import Service

Outcome = Literal["same", "differs", "cannot"]


@dataclass(frozen=True)
class Replayed:
    """How it went, and in words what differs or why it cannot be replayed."""

    id: str
    outcome: Outcome
    text: str
    tokens: int = 0


class Replayer:
    """Replays lines of the log on one model; `chat` renders its chats."""

    def __init__(self, runtime: Runtime, chat: ChatFormat | None) -> None:
        self._runtime, self._chat = runtime, chat
        self._slots: dict[int, Slot] = {}  # by context
        self._limits = Limits(f"{name}={limit.most:.15g}" for name, limit in TABLE.items())
        self._metrics = Metrics()

    def replay(self, entry: Mapping[str, Any]) -> Replayed:
        """Answer a logged request again and compare token by token."""
        id = str(entry.get("id"))
        if reason := self._reason(entry):
            return Replayed(id, "cannot", reason)
        try:
            tasks, choices = self._tasks(entry)
        except (ApiError, ValidationError) as error:
            return Replayed(id, "cannot", f"the request is refused today: {error}")
        if any(task.predict_seconds for task in tasks):
            return Replayed(id, "cannot", "t_max_predict_ms stopped it by the clock")
        if len(tasks) != len(entry["answer"]):
            found = len(entry["answer"])
            return Replayed(id, "cannot", f"it has {found} answers, the request {len(tasks)}")
        slot = self._slot(int(entry["n_ctx"]))
        count = 0
        for number, (task, choice) in enumerate(zip(tasks, choices, strict=True)):
            for event in decode(self._runtime, slot, task):
                if isinstance(event, Piece | Finish):
                    choice.add(event)
            logged, again = entry["answer"][number], choice.logged
            count += len(again["tokens"])
            if difference := _difference(logged, again, whole=entry.get("outcome") == "whole"):
                return Replayed(id, "differs", f"choice {number}: {difference}", count)
        return Replayed(id, "same", f"{count} tokens", count)

    def _reason(self, entry: Mapping[str, Any]) -> str:
        """Why a line cannot be replayed on this model; empty where it can."""
        if not {"request", "answer", "model", "n_ctx", "endpoint"} <= entry.keys():
            return str(entry.get("error") or "the line holds no request that was answered")
        if not _readable(entry):
            return "the line is damaged: it holds no answer of texts and tokens"
        if any(one["finish_reason"] is None for one in entry["answer"]) and "error" in entry:
            return f"it failed: {entry['error']}"
        digest = self._runtime.model.digest
        if entry["model"] != digest:
            return (
                f"it was answered by the model with digest {entry['model'][:16]}, this one has "
                f"{digest[:16]}; name the file that answered with --model"
            )
        return ""

    def _tasks(self, entry: Mapping[str, Any]) -> tuple[list[Task], list[Choice]]:
        request, n_ctx = dict(entry["request"]), int(entry["n_ctx"])
        engine = SimpleNamespace(runtime=self._runtime, n_ctx=n_ctx)
        name = str(request.get("model") or "")
        service = Service(cast(Engine, engine), self._limits, self._metrics, name, 0, 0, self._chat)
        if entry["endpoint"].endswith("/chat/completions"):
            plan = chat_completions.planned(service, ChatBody.model_validate(request))
            return plan.tasks, plan.choices
        if entry["endpoint"].endswith("/completions"):
            plan = completions.planned(service, CompletionBody.model_validate(request))
            return plan.tasks, plan.choices
        filled = infill.planned(service, InfillBody.model_validate(request))
        return filled.tasks, filled.choices

    def _slot(self, n_ctx: int) -> Slot:
        if n_ctx not in self._slots:
            self._slots[n_ctx] = Slot(self._runtime.new_session(n_ctx), [])
        return self._slots[n_ctx]


def _readable(entry: Mapping[str, Any]) -> bool:
    """Say whether request and answer have the form in which they are logged."""
    answers, kinds = entry["answer"], {"text": str, "tokens": list, "finish_reason": object}
    return (
        isinstance(entry["request"], dict)
        and isinstance(entry["model"], str)
        and isinstance(entry["endpoint"], str)
        and isinstance(entry["n_ctx"], int)
        and isinstance(answers, list)
        and all(
            isinstance(one, dict) and all(isinstance(one.get(k), v) for k, v in kinds.items())
            for one in answers
        )
    )


def _difference(logged: Mapping[str, Any], again: Mapping[str, Any], *, whole: bool) -> str:
    """What is not the same, in words; of an answer that was cut off its beginning counts."""
    then, now = list(logged["tokens"]), list(again["tokens"])
    same = next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), None)
    if same is not None:
        return f"token {same} was {then[same]}, now {now[same]}"
    if len(then) > len(now) or (whole and len(then) != len(now)):
        return f"it had {len(then)} tokens, now {len(now)}"
    cut = len(logged["text"]) if not whole else None
    if logged["text"] != again["text"][:cut]:
        return "the same tokens give another text"
    if whole and logged["finish_reason"] != again["finish_reason"]:
        return f"it ended by {logged['finish_reason']}, now by {again['finish_reason']}"
    return ""
