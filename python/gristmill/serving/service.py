"""What the routes share: the engine, its limits, and the way from a request to its events."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from gristmill.data.fim import FimTokens

from .answers import RECENT_BYTES, Choice, Recent, usage
from .chat_format import ChatFormat
from .decode import Event, Finish, Piece, Prefilled, Task
from .engine import Engine, Failure, QueueFull, Stopped
from .fim import fim_tokens, with_bos
from .http_errors import ApiError, bad_value
from .limits import Limits
from .metrics import Metrics
from .monitor import Monitor
from .runtime import ModelLike

PING_SECONDS = 15.0  # a comment line keeps proxies from closing a silent stream
FRAME = 200  # bytes of a server-sent event around its text
TOKEN = 40  # bytes of memory an answer takes per token
SCORE = 40  # bytes of one token with its log-probability, as JSON


class Disconnected(ConnectionError):
    """The client left: nobody is waiting for the answer."""


@dataclass
class Service:
    """One served model."""

    engine: Engine
    limits: Limits
    metrics: Metrics
    name: str
    created: int
    selftests: int = 0
    chat: ChatFormat | None = None
    recent: Recent = field(default_factory=Recent)
    monitor: Monitor | None = None

    @property
    def model(self) -> ModelLike:
        """The model that is served."""
        return self.engine.runtime.model

    @property
    def fingerprint(self) -> str:
        """First 8 hex digits of the weights' digest."""
        return self.model.digest[:8]

    def fim(self, param: str) -> FimTokens:
        """Sentinels of the model. Raises 400 where it was not trained to fill in the middle."""
        tokens = fim_tokens(self.model.metadata)
        if tokens is None:
            message = "this model has no fill-in-the-middle tokens; send a prompt without suffix"
            raise bad_value(param, message)
        return tokens

    def prompt_ids(self, text: str) -> list[int]:
        """Ids of a text prompt; its special tokens count, an empty one is the end-of-text id."""
        ids = with_bos(self.model, self.model.tokenize(text.encode("utf-8"), True))
        return ids or [max(self.model.eos_id, 0)]

    def stops(self, given: Sequence[str], limit: str) -> tuple[str, ...]:
        """Checked stop strings. Raises 400 naming the limit."""
        if len(given) > self.limits[limit]:
            raise bad_value("stop", f"{len(given)} stop strings; at most {self.limits[limit]}")
        for stop in given:
            size = len(stop.encode("utf-8"))
            if not 1 <= size <= self.limits["stop_bytes"]:
                most = self.limits["stop_bytes"]
                raise bad_value("stop", f"a stop string has {size} bytes; allowed are 1 to {most}")
        return tuple(given)

    def check_model(self, name: str | None) -> None:
        """Raise 404 for another model than the one that is served."""
        if name not in (None, self.name):
            message = f"model {name[:100]!r} is not served here; the model is {self.name!r}"
            raise ApiError(404, "model_not_found", message, param="model")

    def check_context(self, prompt: int, answer: int) -> None:
        """Raise 400 where so many tokens do not fit."""
        most = self.engine.n_ctx
        if prompt + answer > most:
            message = (
                f"the prompt has {prompt} tokens and max_tokens is {answer}, together "
                f"{prompt + answer}; the context is {most} tokens: shorten one of them"
            )
            raise ApiError(400, "context_length_exceeded", message, param="prompt")

    def head(self, request: Request, kind: str) -> dict[str, Any]:
        """The fields that every object of one answer begins with."""
        return {
            "id": request.state.id,
            "object": kind,
            "created": int(time.time()),
            "model": self.name,
            "system_fingerprint": self.fingerprint,
        }

    def note(self, request: Request, asked: dict[str, Any], choices: Sequence[Choice]) -> None:
        """Enter a request and its growing answers into its line of the log."""
        entry = request.state.entry
        entry.update(model=self.model.digest, n_ctx=self.engine.n_ctx, request=asked)
        entry["answer"] = [choice.logged for choice in choices]

    def finished(self, request: Request, choices: Sequence[Choice], prompts: int) -> dict[str, Any]:
        """Remember a whole answer, so that it can be voted on; returns its usage."""
        finishes = [choice.ended() for choice in choices]
        total = usage(finishes, prompts)
        request.state.entry.update(usage=total, finish=[end.stop_type for end in finishes])
        if request.state.size + TOKEN * total["completion_tokens"] <= RECENT_BYTES:
            self.recent.keep(request.state.entry)
        return total

    def submit(self, tasks: Sequence[Task], arrived: float, *, stream: bool = True) -> Run:
        """Queue tasks; of a `stream` only so much may wait unread.

        Raises 400 where they never fit, 429 where not now, 503 when stopping.
        """
        if len(tasks) > self.engine.room:
            message = (
                f"{len(tasks)} sequences (prompts x n) in one request; this server takes at most "
                f"{self.engine.room} at one time: send fewer prompts or a smaller n"
            )
            raise bad_value("prompt", message)
        try:
            return Run(self, tasks, arrived, stream)
        except QueueFull as full:
            message = f"the queue is full ({full.waiting} sequences wait); try again later"
            raise ApiError(429, "queue_full", message, retry_seconds=1) from None
        except Stopped:
            message = "the server is stopping"
            raise ApiError(503, "unavailable", message, retry_seconds=5) from None


def chosen_seed(seed: int | None) -> int:
    """The given seed, or a new random one where it is None or -1; answers and log name it."""
    return secrets.randbits(31) if seed is None or seed < 0 else seed


class Run:
    """Submitted tasks and their events, in the order of arrival."""

    def __init__(
        self, service: Service, tasks: Sequence[Task], arrived: float, stream: bool
    ) -> None:
        self._service, self._arrived, self._stream = service, arrived, stream
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Event | Failure | None]] = asyncio.Queue()
        self._unsent, self._open, self._first = 0, len(tasks), True
        self._ids: list[list[int]] = [[] for _ in tasks]
        self._gone: asyncio.Task[None] | None = None
        self.jobs = service.engine.submit(tasks, self._receiver)

    def watch(self, request: Request) -> None:
        """From now on the client's leaving ends `events` with Disconnected."""
        self._gone = asyncio.create_task(self._until_gone(request))

    async def events(self) -> AsyncIterator[tuple[int, Piece | Finish] | None]:
        """(task number, event) until every task is finished; None every 15 silent seconds.

        Raises ApiError for a failed task, Disconnected when the client left.
        """
        while self._open:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    index, event = await self._queue.get()
            except TimeoutError:
                yield None
                continue
            if event is None:
                raise Disconnected
            if isinstance(event, Failure):
                raise _failed(event)
            assert not isinstance(event, Prefilled)
            self._unsent -= _weight(event)
            self._observe(index, event)
            yield index, event

    def close(self) -> None:
        """Free the slots of whatever still runs."""
        if self._gone is not None:
            self._gone.cancel()
        for job in self.jobs:
            job.cancel()

    def _receiver(self, index: int) -> Callable[[Event | Failure], None]:
        def deliver(event: Event | Failure) -> None:  # on the engine's thread
            if not isinstance(event, Prefilled):
                self._loop.call_soon_threadsafe(self._put, index, event)

        return deliver

    def _put(self, index: int, event: Piece | Finish | Failure) -> None:
        self._queue.put_nowait((index, event))
        waiting, self._unsent = self._unsent, self._unsent + _weight(event)
        if self._stream and waiting and self._unsent > self._service.limits["unsent_bytes"]:
            self.close()  # whoever does not read does not keep a slot
            self._queue.put_nowait((index, Failure("request_timeout", "the answer was not read")))

    def _observe(self, index: int, event: Piece | Finish) -> None:
        if isinstance(event, Finish):
            self._open -= 1
            job = self.jobs[index]
            self._service.metrics.generated(event, (job.started or job.submitted) - job.submitted)
            if self._service.monitor is not None:
                self._service.monitor.seen(job.task.prompt, self._ids[index])
            return
        self._ids[index] += event.ids
        if self._first and event.text:
            self._first = False
            self._service.metrics.first_text(time.perf_counter() - self._arrived)

    async def _until_gone(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        for job in self.jobs:
            job.cancel()
        self._queue.put_nowait((0, None))


def _weight(event: Piece | Finish | Failure) -> int:
    """Bytes the event takes once it is sent, roughly."""
    if not isinstance(event, Piece):
        return FRAME
    scores = sum(1 + len(score.top) for score in event.scores)
    return FRAME + 4 * len(event.text) + SCORE * scores


def _failed(failure: Failure) -> ApiError:
    status = 500 if failure.code == "generation_failed" else 503
    retry = 5 if failure.code == "unavailable" else None
    return ApiError(status, failure.code, failure.message, retry_seconds=retry)
