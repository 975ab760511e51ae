"""`POST /v1/chat/completions`: OpenAI's fields, rendered by the model's own template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import Request
from starlette.responses import Response

from gristmill.data.chat_templates import TEMPLATES
from gristmill.errors import DataError

from .answers import Choice, understood
from .chat_format import ChatFormat
from .decode import Finish, Piece
from .http_errors import ApiError, bad_value
from .plan import Chunks, Plan, sampled
from .replying import answer
from .schema import ChatBody, ChatMessage
from .scores import Score
from .service import Service, chosen_seed


async def answer_chat(service: Service, request: Request, body: ChatBody) -> Response:
    """Answer one request, whole or as a stream."""
    return await answer(service, request, body, planned, _Reply)


def planned(service: Service, body: ChatBody) -> Plan:
    """Check a request and say what it asks of the engine. Raises ApiError."""
    service.check_model(body.model or None)  # llama.vim sends an empty name
    body.check_unsupported()
    form = _format(service)
    if len(body.messages) > service.limits["messages"]:
        most = service.limits["messages"]
        raise bad_value("messages", f"{len(body.messages)} messages; allowed are 1 to {most}")
    messages = [_message(number, message) for number, message in enumerate(body.messages)]
    try:
        ids = form.ids(service.model, messages)
    except DataError as error:
        raise bad_value("messages", str(error)) from None
    service.check_context(len(ids), 1)
    asked_most = body.most_tokens()
    most = service.engine.n_ctx - len(ids) if asked_most is None else asked_most
    seed, n = chosen_seed(body.seed), body.n or 1
    scored = _scored(service, body)
    tasks = sampled(service, body, [ids], most, seed, logprobs=scored, stop_ids=form.stops)
    asked = understood(body, n=n, max_tokens=most, seed=seed)
    for alias in ("max_completion_tokens", "n_predict"):
        asked.pop(alias, None)
    return Plan(tasks, [Choice() for _ in tasks], asked, 1, scored)


def _format(service: Service) -> ChatFormat:
    if service.chat is None:
        names = ", ".join(TEMPLATES)
        message = (
            "this model has no chat template; send /v1/completions a prompt, or serve it with "
            f"--chat-template NAME (one of {names})"
        )
        raise ApiError(400, "no_chat_template", message, param="messages")
    return service.chat


def _message(number: int, message: ChatMessage) -> dict[str, str]:
    """Role and text; parts are joined. Raises 400 for what a message of text cannot hold."""
    for name, value in (message.model_extra or {}).items():
        if value not in (None, [], {}, ""):
            where = f"messages.{number}.{name[:40]}"
            raise bad_value("messages", f"field {where!r} is not supported; send text alone")
    content = message.content
    if content is None:
        raise bad_value("messages", f"message {number} has no content; send text")
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": text}


def _scored(service: Service, body: ChatBody) -> int | None:
    most = service.limits["logprobs"]
    if body.top_logprobs and not body.logprobs:
        raise bad_value("top_logprobs", "top_logprobs needs logprobs: true")
    if body.top_logprobs is not None and body.top_logprobs > most:
        raise bad_value("top_logprobs", f"top_logprobs is {body.top_logprobs}; at most {most}")
    return (body.top_logprobs or 0) if body.logprobs else None


class _Reply:
    def __init__(self, service: Service, request: Request, plan: Plan, body: ChatBody) -> None:
        self._plan, self._token_bytes = plan, service.model.token_bytes
        kind = "chat.completion.chunk" if body.stream else "chat.completion"
        self._chunks = Chunks.of(service.head(request, kind), body)
        ignored = body.ignored()
        self.headers = {"x-ignored-fields": ", ".join(ignored)} if ignored else {}
        self.end = self._chunks.end

    def whole(self, usage: dict[str, Any]) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": self._logprobs(choice.scores),
                "finish_reason": choice.ended().reason,
            }
            for index, choice in enumerate(self._plan.choices)
        ]
        return {**self._chunks.head, "choices": choices, "usage": usage}

    def begin(self, index: int) -> Iterator[dict[str, Any]]:
        yield self._chunks.one(index, None, None, delta={"role": "assistant", "content": ""})

    def chunks(self, index: int, event: Piece | Finish) -> Iterator[dict[str, Any]]:
        if isinstance(event, Finish):
            yield self._chunks.one(index, event.reason, None, delta={})
        elif event.text or event.scores:
            logprobs = self._logprobs(event.scores) if event.scores else None
            yield self._chunks.one(index, None, logprobs, delta={"content": event.text})

    def _logprobs(self, scores: Sequence[Score]) -> dict[str, Any] | None:
        """Scores of the tokens of the text; the token that ends it has none."""
        if self._plan.scored is None:
            return None
        content = [
            {
                **self._entry(score.id, score.token, score.logprob),
                "top_logprobs": [self._entry(id, name, logprob) for name, logprob, id in score.top],
            }
            for score in scores
            if not score.ends
        ]
        return {"content": content, "refusal": None}

    def _entry(self, id: int, token: str, logprob: float | None) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(self._token_bytes(id))}
