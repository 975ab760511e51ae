"""`POST /v1/completions`: OpenAI's fields with suffix, streaming, echo and log-probabilities."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from .answers import Choice, understood
from .decode import Finish
from .fim import completion_ids
from .http_errors import bad_value
from .plan import Plan, chain, sampled, wants_usage
from .schema import CompletionBody
from .scores import Score
from .service import Run, Service, chosen_seed
from .sse import PING, EventStream, frame


async def complete(service: Service, request: Request, body: CompletionBody) -> Response:
    """Answer one request, whole or as a stream."""
    arrived = time.perf_counter()
    plan = planned(service, body)
    service.note(request, plan.asked, plan.choices)
    head = service.head(request, "text_completion")
    run = service.submit(plan.tasks, arrived)
    try:
        run.watch(request)
        if body.stream:
            frames = _frames(service, request, plan, run, head, usage=wants_usage(body))
            first = await anext(frames)  # an error before it is still a real status
            return EventStream(chain(first, frames), run.close, {}, done=True)
        async for item in run.events():
            if item is not None:
                plan.choices[item[0]].add(item[1])
        run.close()
        total = service.finished(request, plan.choices, plan.prompts)
        return JSONResponse({**head, "choices": _whole(plan), "usage": total})
    except BaseException:
        run.close()
        raise


def planned(service: Service, body: CompletionBody) -> Plan:
    """Check a request and say what it asks of the engine. Raises ApiError."""
    service.check_model(body.model)
    if body.best_of not in (None, 1):
        raise bad_value("best_of", "best_of is not supported; use n and choose among the answers")
    if body.logprobs is not None and body.logprobs > service.limits["logprobs"]:
        most = service.limits["logprobs"]
        raise bad_value("logprobs", f"logprobs is {body.logprobs}; at most {most}")
    given = _given(service, body)
    prompts = _prompts(service, body, given)
    echo, n, seed = bool(body.echo), body.n or 1, chosen_seed(body.seed)
    most = 16 if body.max_tokens is None else body.max_tokens
    tasks = sampled(service, body, prompts, most, seed, logprobs=body.logprobs, echo=echo)
    texts = [_text(service, prompt) if echo else "" for prompt in given]
    asked = understood(body, n=n, max_tokens=most, seed=seed)
    choices = [Choice(text) for text in texts for _ in range(n)]
    return Plan(tasks, choices, asked, len(prompts), body.logprobs)


def _given(service: Service, body: CompletionBody) -> Sequence[str | list[int]]:
    """The prompts as they came, one or several."""
    given: list[Any] = [body.prompt] if isinstance(body.prompt, str) else list(body.prompt)
    if given and isinstance(given[0], int):
        given = [given]
    if not 1 <= len(given) <= service.limits["prompts"]:
        most = service.limits["prompts"]
        raise bad_value("prompt", f"{len(given)} prompts; allowed are 1 to {most}")
    return given


def _prompts(
    service: Service, body: CompletionBody, given: Sequence[str | list[int]]
) -> list[list[int]]:
    if body.suffix is None:
        return [service.prompt_ids(p) if isinstance(p, str) else _ids(service, p) for p in given]
    tokens = service.fim("suffix")
    if body.echo:
        raise bad_value("echo", "echo and suffix do not go together")
    prompts = []
    for prompt in given:
        if not isinstance(prompt, str):
            raise bad_value("suffix", "with a suffix the prompt must be text, not token ids")
        prompts.append(completion_ids(service.model, tokens, prompt, body.suffix))
    return prompts


def _ids(service: Service, ids: list[int]) -> list[int]:
    size = service.model.vocab_size
    if not ids:
        raise bad_value("prompt", "a prompt of token ids is empty")
    for value in ids:
        if not 0 <= value < size:
            raise bad_value("prompt", f"token id {value}; this model has 0 to {size - 1}")
    return ids


def _text(service: Service, given: str | list[int]) -> str:
    if isinstance(given, str):
        return given
    data = b"".join(service.model.token_bytes(i) for i in given)
    return data.decode("utf-8", errors="replace")


def _whole(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "text": choice.text,
            "logprobs": _logprobs(choice.scores, plan.scored),
            "finish_reason": choice.ended().reason,
        }
        for index, choice in enumerate(plan.choices)
    ]


def _logprobs(scores: Sequence[Score], alternatives: int | None) -> dict[str, Any] | None:
    if alternatives is None:
        return None
    tops: list[dict[str, float] | None] = []
    for score in scores:
        if score.logprob is None:
            tops.append(None)
        else:  # the chosen token is always among its alternatives
            top = {name: logprob for name, logprob, _ in score.top}
            top.setdefault(score.token, score.logprob)
            tops.append(top)
    return {
        "tokens": [score.token for score in scores],
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": tops if alternatives else None,
        "text_offset": [score.offset for score in scores],
    }


async def _frames(
    service: Service, request: Request, plan: Plan, run: Run, head: dict[str, Any], *, usage: bool
) -> AsyncIterator[bytes]:
    echoed: set[int] = set()

    def chunk(index: int, text: str, scores: tuple[Score, ...], reason: str | None) -> bytes:
        choice = {
            "index": index,
            "text": text,
            "logprobs": _logprobs(scores, plan.scored) if scores else None,
            "finish_reason": reason,
        }
        common = {"usage": None} if usage else {}
        return frame({**head, "choices": [choice], **common})

    async for item in run.events():
        if item is None:
            yield PING
            continue
        index, event = item
        if index not in echoed:
            echoed.add(index)
            if plan.choices[index].text:  # nothing is generated yet: the echoed prompt
                yield chunk(index, plan.choices[index].text, (), None)
        plan.choices[index].add(event)
        if isinstance(event, Finish):
            yield chunk(index, "", (), event.reason)
        elif event.text or event.scores:
            yield chunk(index, event.text, event.scores, None)
    total = service.finished(request, plan.choices, plan.prompts)
    if usage:
        yield frame({**head, "choices": [], "usage": total})
