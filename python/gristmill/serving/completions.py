"""`POST /v1/completions`: OpenAI's fields with suffix, streaming, echo and log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import Request
from starlette.responses import Response

from .answers import Choice, understood
from .decode import Finish, Piece
from .fim import completion_ids
from .http_errors import bad_value
from .plan import Chunks, Plan, sampled
from .replying import answer
from .schema import CompletionBody
from .scores import Score
from .service import Service, chosen_seed


async def complete(service: Service, request: Request, body: CompletionBody) -> Response:
    """Answer one request, whole or as a stream."""
    return await answer(service, request, body, planned, _Reply)


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


class _Reply:
    def __init__(
        self, service: Service, request: Request, plan: Plan, body: CompletionBody
    ) -> None:
        self._plan = plan
        self._chunks = Chunks.of(service.head(request, "text_completion"), body)
        self.headers: dict[str, str] = {}
        self.end = self._chunks.end

    def whole(self, usage: dict[str, Any]) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "text": choice.text,
                "logprobs": _logprobs(choice.scores, self._plan.scored),
                "finish_reason": choice.ended().reason,
            }
            for index, choice in enumerate(self._plan.choices)
        ]
        return {**self._chunks.head, "choices": choices, "usage": usage}

    def begin(self, index: int) -> Iterator[dict[str, Any]]:
        if echoed := self._plan.choices[index].text:  # nothing is generated yet
            yield self._chunks.one(index, None, None, text=echoed)

    def chunks(self, index: int, event: Piece | Finish) -> Iterator[dict[str, Any]]:
        if isinstance(event, Finish):
            yield self._chunks.one(index, event.reason, None, text="")
        elif event.text or event.scores:
            logprobs = _logprobs(event.scores, self._plan.scored) if event.scores else None
            yield self._chunks.one(index, None, logprobs, text=event.text)


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
