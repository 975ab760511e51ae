"""`POST /v1/chat/completions`: OpenAI's fields, rendered by the model's own template."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from gristmill.data.chat_templates import TEMPLATES
from gristmill.errors import DataError

from .answers import Choice, understood
from .chat_format import ChatFormat
from .decode import Finish
from .http_errors import ApiError, bad_value
from .plan import Plan, chain, sampled, wants_usage
from .schema import ChatBody, ChatMessage
from .scores import Score
from .service import Run, Service, chosen_seed
from .sse import PING, EventStream, frame


async def answer_chat(service: Service, request: Request, body: ChatBody) -> Response:
    """Answer one request, whole or as a stream."""
    arrived = time.perf_counter()
    plan = planned(service, body)
    ignored = body.ignored()
    headers = {"x-ignored-fields": ", ".join(ignored)} if ignored else {}
    service.note(request, plan.asked, plan.choices)
    run = service.submit(plan.tasks, arrived)
    try:
        run.watch(request)
        if body.stream:
            frames = _frames(service, request, plan, run, usage=wants_usage(body))
            first = await anext(frames)  # an error before it is still a real status
            return EventStream(chain(first, frames), run.close, headers, done=True)
        async for item in run.events():
            if item is not None:
                plan.choices[item[0]].add(item[1])
        run.close()
        total = service.finished(request, plan.choices, plan.prompts)
        head = service.head(request, "chat.completion")
        choices = [_whole(service, plan, i) for i in range(len(plan.choices))]
        return JSONResponse({**head, "choices": choices, "usage": total}, headers=headers)
    except BaseException:
        run.close()
        raise


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


def _whole(service: Service, plan: Plan, index: int) -> dict[str, Any]:
    choice = plan.choices[index]
    return {
        "index": index,
        "message": {"role": "assistant", "content": choice.text, "refusal": None},
        "logprobs": _logprobs(service, plan, choice.scores),
        "finish_reason": choice.ended().reason,
    }


def _logprobs(service: Service, plan: Plan, scores: Sequence[Score]) -> dict[str, Any] | None:
    """Scores of the tokens of the text; the token that ends it has none."""
    if plan.scored is None:
        return None
    token_bytes = service.model.token_bytes

    def entry(id: int, token: str, logprob: float | None) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(token_bytes(id))}

    content = [
        {
            **entry(score.id, score.token, score.logprob),
            "top_logprobs": [entry(id, name, logprob) for name, logprob, id in score.top],
        }
        for score in scores
        if not score.ends
    ]
    return {"content": content, "refusal": None}


async def _frames(
    service: Service, request: Request, plan: Plan, run: Run, *, usage: bool
) -> AsyncIterator[bytes]:
    head = service.head(request, "chat.completion.chunk")
    begun: set[int] = set()

    def chunk(
        index: int, delta: dict[str, str], scores: Sequence[Score] = (), reason: str | None = None
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": _logprobs(service, plan, scores) if scores else None,
            "finish_reason": reason,
        }
        common = {"usage": None} if usage else {}
        return frame({**head, "choices": [choice], **common})

    async for item in run.events():
        if item is None:
            yield PING
            continue
        index, event = item
        if index not in begun:
            begun.add(index)
            yield chunk(index, {"role": "assistant", "content": ""})
        plan.choices[index].add(event)
        if isinstance(event, Finish):
            yield chunk(index, {}, reason=event.reason)
        elif event.text or event.scores:
            yield chunk(index, {"content": event.text}, event.scores)
    total = service.finished(request, plan.choices, plan.prompts)
    if usage:
        yield frame({**head, "choices": [], "usage": total})
