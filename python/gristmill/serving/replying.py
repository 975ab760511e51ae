"""From a request to its answer, alike for every route that generates: plan, run, write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from .decode import Finish, Piece
from .plan import Plan
from .service import Run, Service
from .sse import PING, EventStream, frame

LARGE = 16384  # bytes of a body whose tokens are found on another thread: 1 MiB may take 2 s


class Body(Protocol):
    """What every body that asks for text has."""

    @property
    def stream(self) -> bool | None: ...


class Reply(Protocol):
    """How a route writes what is generated."""

    @property
    def headers(self) -> dict[str, str]: ...
    def whole(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The answer in one object."""

    def begin(self, index: int) -> Iterator[dict[str, Any]]:
        """What stands in a stream before the first event of choice `index`."""

    def chunks(self, index: int, event: Piece | Finish) -> Iterator[dict[str, Any]]:
        """What an event adds to a stream; its choice has taken it already."""

    def end(self, usage: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What stands at the end of a stream."""


P = TypeVar("P", bound=Plan)
B = TypeVar("B", bound=Body)


async def answer(
    service: Service,
    request: Request,
    body: B,
    planned: Callable[[Service, B], P],
    reply_of: Callable[[Service, Request, P, B], Reply],
    *,
    done: bool = True,
) -> Response:
    """Answer one request, whole or as a stream, at whose end `done` writes OpenAI's mark."""
    arrived = time.perf_counter()
    if request.state.size > LARGE:  # the streams of others go on meanwhile
        plan = await asyncio.to_thread(planned, service, body)
    else:
        plan = planned(service, body)
    reply = reply_of(service, request, plan, body)
    run = service.submit(plan.tasks, arrived, stream=bool(body.stream))
    try:
        service.note(request, plan.asked, plan.choices)
        run.watch(request)
        if body.stream:
            frames = _frames(service, request, plan, run, reply)
            first = await anext(frames)  # an error before it is still a real status
            return EventStream(_chain(first, frames), run.close, reply.headers, done=done)
        async for item in run.events():
            if item is not None:
                plan.choices[item[0]].add(item[1])
        run.close()
        total = service.finished(request, plan.choices, plan.prompts)
        return JSONResponse(reply.whole(total), headers=reply.headers)
    except BaseException:
        run.close()
        raise


async def _frames(
    service: Service, request: Request, plan: Plan, run: Run, reply: Reply
) -> AsyncIterator[bytes]:
    begun: set[int] = set()
    async for item in run.events():
        if item is None:
            yield PING
            continue
        index, event = item
        if index not in begun:
            begun.add(index)
            for part in reply.begin(index):
                yield frame(part)
        plan.choices[index].add(event)
        for part in reply.chunks(index, event):
            yield frame(part)
    total = service.finished(request, plan.choices, plan.prompts)
    for part in reply.end(total):
        yield frame(part)


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for item in rest:
        yield item
