"""`POST /infill` with llama.cpp's fields, for editor plugins (llama.vim, llama.vscode)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import Response

from .answers import Choice, understood
from .decode import Finish, Piece, Task
from .fim import FimPrompt, infill_ids
from .http_errors import bad_value
from .plan import Plan
from .replying import answer
from .schema import InfillBody
from .scores import Score
from .service import Service, chosen_seed

# llama.cpp's names of the steps we have, and its letters; they run in this order
SAMPLERS = {"top_k": "k", "top_p": "p", "min_p": "m", "temperature": "t", "infill": "i"}
LETTERS = {letter: name for name, letter in SAMPLERS.items()}


@dataclass
class InfillPlan(Plan):
    """A checked request with its prompt as it was cut and the fields that are ignored."""

    prompt: FimPrompt
    ignored: list[str]


async def infill(service: Service, request: Request, body: InfillBody) -> Response:
    """Answer one request, whole or as a stream of llama.cpp's objects."""
    return await answer(service, request, body, planned, _Reply, done=False)


def planned(service: Service, body: InfillBody) -> InfillPlan:
    """Check a request and say what it asks of the engine. Raises ApiError."""
    tokens = service.fim("input_suffix")
    extra = body.input_extra or []
    if len(extra) > service.limits["extra"]:
        raise bad_value("input_extra", f"{len(extra)} chunks; at most {service.limits['extra']}")
    n_ctx = service.engine.n_ctx
    wanted = -1 if body.n_predict is None else body.n_predict
    prompt = infill_ids(
        service.model,
        tokens,
        body.input_prefix or "",
        body.input_suffix or "",
        body.prompt or "",
        [chunk.text for chunk in extra],
        n_ctx=n_ctx,
        n_predict=wanted,
    )
    room = n_ctx - len(prompt.ids)
    task, unused = _task(service, body, prompt, room if wanted < 0 else min(wanted, room))
    ignored = body.unknown() + unused
    asked = understood(body, seed=task.seed)
    return InfillPlan([task], [Choice()], asked, 1, task.logprobs, prompt, ignored)


def _task(
    service: Service, body: InfillBody, prompt: FimPrompt, most: int
) -> tuple[Task, list[str]]:
    """The task with llama.cpp's defaults, and the samplers asked for that we do not have."""
    named = SAMPLERS.keys() if body.samplers is None else list(body.samplers)
    steps = {LETTERS.get(name, name) for name in named}
    probs = body.n_probs or 0
    if probs > service.limits["logprobs"]:
        raise bad_value("n_probs", f"n_probs is {probs}; at most {service.limits['logprobs']}")
    top_p = _number("top_p", body.top_p, 0.95, 0.0, 1e9)
    min_p = _number("min_p", body.min_p, 0.05, -1e9, 1.0)
    task = Task(
        tuple(prompt.ids),
        most,
        temperature=(0.8 if body.temperature is None else body.temperature)
        if "temperature" in steps
        else 1.0,
        top_k=min(max(40 if body.top_k is None else body.top_k, 0), (1 << 31) - 1)
        if "top_k" in steps
        else 0,
        top_p=min(top_p, 1.0) if "top_p" in steps else 1.0,
        min_p=max(min_p, 0.0) if "min_p" in steps else 0.0,
        seed=chosen_seed(body.seed),
        stop=service.stops(body.stop or [], "infill_stop"),
        logprobs=probs or None,
        ignore_eos=bool(body.ignore_eos),
        infill="infill" in steps and body.samplers is not None,
        indent=body.n_indent or 0,
        predict_seconds=max(body.t_max_predict_ms or 0.0, 0.0) / 1000,
    )
    return task, [f"samplers:{name}" for name in sorted(steps - SAMPLERS.keys())]


def _number(name: str, given: float | None, default: float, least: float, most: float) -> float:
    value = default if given is None else given
    if not least <= value <= most:
        raise bad_value(name, f"{name} is {value:g}; allowed are {least:g} to {most:g}")
    return value


class _Reply:
    def __init__(
        self, service: Service, request: Request, plan: InfillPlan, body: InfillBody
    ) -> None:
        self._service, self._id = service, request.state.id
        self._plan, self._body, self._choice = plan, body, plan.choices[0]
        names = ", ".join(name for name in plan.ignored if name.isascii() and name.isprintable())
        self.headers = {"x-ignored-fields": names[:1000]} if names else {}

    def whole(self, usage: dict[str, Any]) -> dict[str, Any]:
        answer = self._answer(self._choice.text)
        if self._body.return_tokens:
            answer["tokens"] = self._choice.logged["tokens"]
        if self._plan.scored is not None:
            scores = self._choice.scores
            answer["completion_probabilities"] = [_probability(score) for score in scores]
        fields = self._body.response_fields
        return picked(answer, fields) if fields else answer

    def begin(self, index: int) -> Iterator[dict[str, Any]]:
        return iter(())

    def chunks(self, index: int, event: Piece | Finish) -> Iterator[dict[str, Any]]:
        if isinstance(event, Finish) or not (event.text or event.scores):
            return
        part: dict[str, Any] = {
            "index": 0,
            "content": event.text,
            "tokens": list(event.ids),
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": len(self._choice.logged["tokens"]),
            "tokens_evaluated": len(self._plan.prompt.ids),
        }
        if self._plan.scored is not None:
            part["completion_probabilities"] = [_probability(score) for score in event.scores]
        yield part

    def end(self, usage: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield self._answer("")

    def _answer(self, text: str) -> dict[str, Any]:
        task, finish = self._plan.tasks[0], self._choice.ended()
        return {
            "index": 0,
            "content": text,
            "tokens": [],
            "id_slot": -1,
            "stop": True,
            "model": self._service.name,
            "tokens_predicted": finish.completion_tokens,
            "tokens_evaluated": finish.prompt_tokens,
            "tokens_cached": finish.cached_tokens,
            "truncated": self._plan.prompt.truncated,
            "stop_type": finish.stop_type,
            "stopping_word": finish.stop_word,
            "has_new_line": "\n" in text,
            "generation_settings": {
                "n_predict": task.max_tokens,
                "n_ctx": self._service.engine.n_ctx,
                "seed": task.seed,
                "temperature": task.temperature,
                "top_k": task.top_k,
                "top_p": task.top_p,
                "min_p": task.min_p,
                "stop": list(task.stop),
                "n_indent": task.indent,
                "t_max_predict_ms": task.predict_seconds * 1000,
            },
            "timings": _timings(finish),
            "id": self._id,
        }


def _timings(finish: Finish) -> dict[str, float]:
    evaluated = finish.prompt_tokens - finish.cached_tokens
    timings: dict[str, float] = {"cache_n": finish.cached_tokens}
    for phase, count, seconds in (
        ("prompt", evaluated, finish.prompt_seconds),
        ("predicted", finish.completion_tokens, finish.predict_seconds),
    ):
        timings[f"{phase}_n"] = count
        timings[f"{phase}_ms"] = seconds * 1000
        timings[f"{phase}_per_token_ms"] = seconds * 1000 / count if count else 0.0
        timings[f"{phase}_per_second"] = count / seconds if seconds > 0 else 0.0
    return timings


def picked(answer: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """llama.cpp's response_fields: "a/b" selects a nested value under that very key."""
    result = {}
    for path in fields:
        value: Any = answer
        for part in path.split("/"):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            result[path] = value
    return result


def _probability(score: Score) -> dict[str, Any]:
    top = [{"id": id, "token": name, "logprob": logprob} for name, logprob, id in score.top]
    return {"id": score.id, "token": score.token, "logprob": score.logprob, "top_logprobs": top}
