"""`POST /v1/completions`: OpenAI's fields with suffix, streaming, echo and log-probabilities."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from .decode import Finish, Piece, Task
from .fim import completion_ids
from .http_errors import ApiError, bad_value
from .schema import CompletionBody
from .scores import Score
from .service import Run, Service, chosen_seed
from .sse import PING, EventStream, frame

ID_DIGITS = 10  # of the largest 32-bit id; int() of a longer key may cost more than the answer


@dataclass
class _Plan:
    """A checked request: one task per (prompt, choice), the texts to echo, the common fields."""

    tasks: list[Task]
    echoes: list[str]
    head: dict[str, Any]
    seed: int
    prompts: int
    scored: int | None


@dataclass
class _Choice:
    text: list[str] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    finish: Finish | None = None


async def complete(service: Service, request: Request, body: CompletionBody) -> Response:
    """Answer one request, whole or as a stream."""
    arrived = time.perf_counter()
    plan = _plan(service, body, request.state.id)
    entry = request.state.entry
    entry.update(seed=plan.seed, model=service.fingerprint, stream=bool(body.stream))
    run = service.submit(plan.tasks, arrived)
    try:
        run.watch(request)
        if body.stream:
            usage = body.stream_options is not None and bool(body.stream_options.include_usage)
            frames = _frames(plan, run, entry, usage=usage)
            first = await anext(frames)  # an error before it is still a real status
            return EventStream(chain(first, frames), run.close, {}, done=True)
        choices = [_Choice() for _ in plan.tasks]
        async for item in run.events():
            if item is not None:
                _collect(choices[item[0]], item[1])
        run.close()
        return JSONResponse(_whole(plan, choices, entry))
    except BaseException:
        run.close()
        raise


def _plan(service: Service, body: CompletionBody, request_id: str) -> _Plan:
    if body.model is not None and body.model != service.name:
        message = f"model {body.model[:100]!r} is not served here; the model is {service.name!r}"
        raise ApiError(404, "model_not_found", message, param="model")
    if body.best_of not in (None, 1):
        raise bad_value("best_of", "best_of is not supported; use n and choose among the answers")
    limits, n = service.limits, body.n or 1
    if n > limits["n"]:
        raise bad_value("n", f"n is {n}; at most {limits['n']}")
    if body.logprobs is not None and body.logprobs > limits["logprobs"]:
        raise bad_value("logprobs", f"logprobs is {body.logprobs}; at most {limits['logprobs']}")
    prompts = _prompts(service, body)
    stop = service.stops([body.stop] if isinstance(body.stop, str) else body.stop or [], "stop")
    seed = chosen_seed(body.seed)
    most = 16 if body.max_tokens is None else body.max_tokens
    bias = _bias(service, body)
    tasks = []
    for ids in prompts:
        _check_context(service, len(ids), most)
        for choice in range(n):  # a choice's seed does not depend on the other prompts
            tasks.append(
                Task(
                    tuple(ids),
                    most,
                    temperature=1.0 if body.temperature is None else body.temperature,
                    top_k=body.top_k or 0,
                    top_p=1.0 if body.top_p is None else body.top_p,
                    min_p=body.min_p or 0.0,
                    seed=(seed + choice) % (1 << 63),
                    stop=stop,
                    logprobs=body.logprobs,
                    echo=bool(body.echo),
                    logit_bias=bias,
                    presence_penalty=body.presence_penalty or 0.0,
                    frequency_penalty=body.frequency_penalty or 0.0,
                )
            )
    echoes = [_text(service, body.prompt, ids) if body.echo else "" for ids in prompts]
    head = {
        "id": f"cmpl-{request_id or uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": service.name,
        "system_fingerprint": service.fingerprint,
    }
    texts = [echo for echo in echoes for _ in range(n)]
    return _Plan(tasks, texts, head, seed, len(prompts), body.logprobs)


def _prompts(service: Service, body: CompletionBody) -> list[list[int]]:
    given = body.prompt
    several: list[Any] = [given] if isinstance(given, str) else list(given)
    if several and isinstance(several[0], int):
        several = [several]
    if not 1 <= len(several) <= service.limits["prompts"]:
        most = service.limits["prompts"]
        raise bad_value("prompt", f"{len(several)} prompts; allowed are 1 to {most}")
    if body.suffix is not None:
        tokens = service.fim("suffix")
        if body.echo:
            raise bad_value("echo", "echo and suffix do not go together")
        if not all(isinstance(prompt, str) for prompt in several):
            raise bad_value("suffix", "with a suffix the prompt must be text, not token ids")
        return [completion_ids(service.model, tokens, p, body.suffix) for p in several]
    return [service.prompt_ids(p) if isinstance(p, str) else _ids(service, p) for p in several]


def _ids(service: Service, ids: list[int]) -> list[int]:
    size = service.model.vocab_size
    if not ids:
        raise bad_value("prompt", "a prompt of token ids is empty")
    for value in ids:
        if not 0 <= value < size:
            raise bad_value("prompt", f"token id {value}; this model has 0 to {size - 1}")
    return ids


def _bias(service: Service, body: CompletionBody) -> dict[int, float]:
    given = body.logit_bias or {}
    if len(given) > service.limits["logit_bias"]:
        message = f"{len(given)} biases; at most {service.limits['logit_bias']}"
        raise bad_value("logit_bias", message)
    result = {}
    for key, value in given.items():
        known = key.isascii() and key.isdigit() and len(key) <= ID_DIGITS
        if not known or int(key) >= service.model.vocab_size:
            raise bad_value("logit_bias", f"{key[:40]!r} is no token id of this model")
        if not -100 <= value <= 100:
            raise bad_value("logit_bias", f"a bias is {value:g}; allowed are -100 to 100")
        result[int(key)] = value
    return result


def _check_context(service: Service, prompt: int, answer: int) -> None:
    most = service.engine.n_ctx
    if prompt + answer > most:
        message = (
            f"the prompt has {prompt} tokens and max_tokens is {answer}, together "
            f"{prompt + answer}; the context is {most} tokens: shorten one of them"
        )
        raise ApiError(400, "context_length_exceeded", message, param="prompt")


def _text(service: Service, given: Any, ids: list[int]) -> str:
    if isinstance(given, str):
        return given
    data = b"".join(service.model.token_bytes(i) for i in ids)
    return data.decode("utf-8", errors="replace")


def _collect(choice: _Choice, event: Piece | Finish) -> None:
    if isinstance(event, Finish):
        choice.finish = event
    else:
        choice.text.append(event.text)
        choice.scores.extend(event.scores)


def _whole(plan: _Plan, choices: list[_Choice], entry: dict[str, Any]) -> dict[str, Any]:
    answers = []
    finishes = []
    for index, (choice, echo) in enumerate(zip(choices, plan.echoes, strict=True)):
        assert choice.finish is not None
        finishes.append(choice.finish)
        answers.append(
            {
                "index": index,
                "text": echo + "".join(choice.text),
                "logprobs": _logprobs(choice.scores, plan.scored),
                "finish_reason": choice.finish.reason,
            }
        )
    usage = _usage(finishes, plan.prompts)
    entry.update(usage=usage, finish=[finish.stop_type for finish in finishes])
    return {**plan.head, "choices": answers, "usage": usage}


def _logprobs(scores: list[Score], alternatives: int | None) -> dict[str, Any] | None:
    if alternatives is None:
        return None
    tops: list[dict[str, float] | None] = []
    for score in scores:
        if score.logprob is None:
            tops.append(None)
        else:  # the chosen token is always among its alternatives
            top = dict(score.top)
            top.setdefault(score.token, score.logprob)
            tops.append(top)
    return {
        "tokens": [score.token for score in scores],
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": tops if alternatives else None,
        "text_offset": [score.offset for score in scores],
    }


def _usage(finishes: list[Finish], prompts: int) -> dict[str, Any]:
    per_prompt = finishes[:: max(1, len(finishes) // prompts)]  # a prompt counts once for all n
    prompt = sum(finish.prompt_tokens for finish in per_prompt)
    answer = sum(finish.completion_tokens for finish in finishes)
    cached = sum(finish.cached_tokens for finish in per_prompt)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


async def _frames(
    plan: _Plan, run: Run, entry: dict[str, Any], *, usage: bool
) -> AsyncIterator[bytes]:
    finishes: dict[int, Finish] = {}
    echoed: set[int] = set()

    def chunk(index: int, text: str, scores: tuple[Score, ...], reason: str | None) -> bytes:
        choice = {
            "index": index,
            "text": text,
            "logprobs": _logprobs(list(scores), plan.scored) if scores else None,
            "finish_reason": reason,
        }
        common = {"usage": None} if usage else {}
        return frame({**plan.head, "choices": [choice], **common})

    async for item in run.events():
        if item is None:
            yield PING
            continue
        index, event = item
        if index not in echoed:
            echoed.add(index)
            if plan.echoes[index]:
                yield chunk(index, plan.echoes[index], (), None)
        if isinstance(event, Finish):
            finishes[index] = event
            yield chunk(index, "", (), event.reason)
        elif event.text or event.scores:
            yield chunk(index, event.text, event.scores, None)
    ordered = [finishes[i] for i in sorted(finishes)]
    total = _usage(ordered, plan.prompts)
    entry.update(usage=total, finish=[finish.stop_type for finish in ordered])
    if usage:
        yield frame({**plan.head, "choices": [], "usage": total})


async def chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`first`, then `rest`."""
    yield first
    async for item in rest:
        yield item
