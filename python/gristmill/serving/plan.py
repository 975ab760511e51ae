"""From a checked request to the engine's tasks: what /v1/completions and chat have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .answers import Choice
from .decode import Task
from .http_errors import bad_value
from .schema import SamplingFields
from .service import Service

ID_DIGITS = 10  # of the largest 32-bit id; int() of a longer key may cost more than the answer


@dataclass
class Plan:
    """A checked request: one task per (prompt, choice), its choices, the request as understood."""

    tasks: list[Task]
    choices: list[Choice]
    asked: dict[str, Any]
    prompts: int
    scored: int | None


def sampled(
    service: Service,
    body: SamplingFields,
    prompts: Sequence[Sequence[int]],
    most: int,
    seed: int,
    *,
    logprobs: int | None,
    echo: bool = False,
    stop_ids: frozenset[int] = frozenset(),
) -> list[Task]:
    """One task per prompt and choice. Raises ApiError for a value out of range."""
    limits, n = service.limits, body.n or 1
    if n > limits["n"]:
        raise bad_value("n", f"n is {n}; at most {limits['n']}")
    _check_scores(service, prompts, n * most, n if echo else 0, logprobs)
    stop = service.stops([body.stop] if isinstance(body.stop, str) else body.stop or [], "stop")
    bias = _bias(service, body)
    tasks = []
    for ids in prompts:
        service.check_context(len(ids), most)
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
                    logprobs=logprobs,
                    echo=echo,
                    stop_ids=stop_ids,
                    logit_bias=bias,
                    presence_penalty=body.presence_penalty or 0.0,
                    frequency_penalty=body.frequency_penalty or 0.0,
                )
            )
    return tasks


def _check_scores(
    service: Service,
    prompts: Sequence[Sequence[int]],
    generated: int,
    echoed: int,
    logprobs: int | None,
) -> None:
    """Raise 400 for more log-probabilities than are kept; both counts are of each prompt."""
    if logprobs is None:
        return
    tokens = len(prompts) * generated + echoed * sum(map(len, prompts))
    asked, most = tokens * (1 + logprobs), service.limits["scores"]
    if asked > most:
        message = (
            f"{tokens} tokens with {1 + logprobs} log-probabilities each are {asked}; at most "
            f"{most} in one request: ask for fewer tokens, prompts, choices or alternatives"
        )
        raise bad_value("logprobs", message)


def _bias(service: Service, body: SamplingFields) -> dict[int, float]:
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


@dataclass
class Chunks:
    """Objects of one OpenAI stream: what is common to all of them."""

    head: dict[str, Any]
    usage: bool  # the last one has the counts

    @classmethod
    def of(cls, head: dict[str, Any], body: SamplingFields) -> Chunks:
        """Chunks as `body` asks for them."""
        return cls(
            head, body.stream_options is not None and bool(body.stream_options.include_usage)
        )

    def one(self, index: int, reason: str | None, logprobs: Any, **said: Any) -> dict[str, Any]:
        """The object that adds `said` to choice `index`."""
        choice = {"index": index, **said, "logprobs": logprobs, "finish_reason": reason}
        return {**self.head, "choices": [choice], **({"usage": None} if self.usage else {})}

    def end(self, usage: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The counts, where they were asked for."""
        if self.usage:
            yield {**self.head, "choices": [], "usage": usage}
