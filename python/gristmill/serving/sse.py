"""Server-sent events: one frame per write, errors as a frame once the stream has begun."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .http_errors import ApiError

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}


def frame(data: Mapping[str, Any]) -> bytes:
    """`data: {...}` with its empty line."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode("ascii") + b"\n\n"


DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


class EventStream(Response):
    """Sends the frames of an iterator; `close` runs however it ends."""

    def __init__(
        self,
        frames: AsyncIterator[bytes],
        close: Callable[[], None],
        headers: Mapping[str, str],
        *,
        done: bool,
    ) -> None:
        super().__init__(status_code=200)
        self._frames, self._close, self._done = frames, close, done
        pairs = {**HEADERS, **headers}
        self.raw_headers = [(k.encode(), v.encode("latin-1")) for k, v in pairs.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything; an ApiError midway becomes an error frame."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async for data in self._frames:
                    await _body(send, data, more=True)
            except ApiError as error:
                scope["state"]["entry"]["error"] = f"{error.code}: {error.message}"
                await _body(send, frame(error.body()), more=True)
            except ConnectionError:
                return  # the client left: the stream stays unfinished
            await _body(send, DONE if self._done else b"", more=False)
        finally:
            self._close()


async def _body(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})
