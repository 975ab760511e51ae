"""ASGI middleware around the whole application: limits, access, deadlines, log line.

Everything that a client can do wrong before its JSON has a meaning is answered here, so the routes
see only whole, parsed, permitted requests. Sending a body too slowly, not reading the answer, or
leaving are events here too: each ends the request and frees its slot.
"""

from __future__ import annotations

import asyncio
import hmac
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .http_errors import ApiError
from .json_check import checked_json
from .limits import Limits
from .metrics import Metrics
from .request_log import RequestLog

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/health", "/health/ready"})  # every other path needs the key
KINDS = {"/v1/completions": "cmpl", "/v1/chat/completions": "chatcmpl", "/infill": "infill"}
METHODS = frozenset({"GET", "HEAD", "POST"})
SAFE = (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")


class Guard:
    """Wraps `app`; `hosts` are the allowed Host names, None allows any (a key is set then)."""

    def __init__(
        self,
        app: App,
        limits: Limits,
        *,
        api_key: str | None,
        hosts: frozenset[str] | None,
        metrics: Metrics,
        log: RequestLog | None,
    ) -> None:
        self._app, self._limits, self._hosts = app, limits, hosts
        self._key = None if api_key is None else api_key.encode()
        self._metrics, self._log = metrics, log
        self._active: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other protocols than HTTP are ignored, so the server closes them."""
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, send, self._limits.seconds("write_seconds"))
        address = str((scope.get("client") or ("?",))[0])
        self._active[address] += 1
        try:
            await self._serve(scope, receive, exchange, address)
        except ApiError as error:
            await exchange.refuse(error)
        except (TimeoutError, ConnectionError):
            exchange.outcome = "gone"  # nobody is left to answer
        except Exception as error:
            exchange.entry["error"] = f"{type(error).__name__}: {error}"
            message = f"internal error; the server's log has it under {exchange.id}"
            await exchange.refuse(ApiError(500, "internal_error", message))
        finally:
            self._active[address] -= 1
            if not self._active[address]:
                del self._active[address]
            self._record(exchange)

    async def _serve(
        self, scope: Scope, receive: Receive, exchange: _Exchange, address: str
    ) -> None:
        headers = self._headers(scope)
        self._check_host(headers)
        if self._active[address] > self._limits["per_address"]:
            message = f"{self._limits['per_address']} requests from your address are open"
            raise ApiError(429, "too_many_requests", message, retry_seconds=1)
        if scope["path"] not in OPEN:
            self._check_key(headers)
        if scope["method"] not in METHODS:
            message = f"method {scope['method'][:20]!r} is not used here"
            raise ApiError(405, "method_not_allowed", message, headers={"allow": "GET, HEAD, POST"})
        state = scope.setdefault("state", {})
        state["entry"], state["id"] = exchange.entry, exchange.id
        if scope["method"] == "POST":
            body = await self._body(headers, receive)
            state["size"], state["json"] = len(body), checked_json(body, self._limits)
            receive = _replay(body, receive)
        await self._app(scope, receive, exchange.send)

    def _headers(self, scope: Scope) -> dict[bytes, bytes]:
        limit = self._limits["request_line"]
        if len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"") > limit:
            raise ApiError(414, "uri_too_long", f"the path is longer than {limit} bytes")
        pairs = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
        if len(pairs) > self._limits["header_count"]:
            message = f"{len(pairs)} headers; at most {self._limits['header_count']}"
            raise ApiError(431, "too_many_headers", message)
        names = Counter(name for name, _ in pairs)
        if names[b"host"] != 1:
            raise ApiError(400, "invalid_host", f"{names[b'host']} Host headers; send exactly one")
        for name in (b"content-length", b"authorization", b"content-type", b"origin"):
            if names[name] > 1:
                raise ApiError(400, "invalid_header", f"header {name.decode()} is given twice")
        if names[b"content-length"] and names[b"transfer-encoding"]:
            raise ApiError(400, "invalid_header", "both content-length and transfer-encoding")
        return dict(pairs)

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        host = headers[b"host"].decode("latin-1").lower()
        if self._hosts is not None and _without_port(host) not in self._hosts:
            # a web page that resolves its own name to this address (DNS rebinding)
            message = f"host {host!r} is not served here; add it with --allow-host"
            raise ApiError(403, "host_not_allowed", message)
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if origin and origin.partition("://")[2] != host:
            raise ApiError(
                403, "origin_not_allowed", f"pages of {origin!r} may not call this server"
            )

    def _check_key(self, headers: dict[bytes, bytes]) -> None:
        if self._key is None:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
            message = "no or wrong API key; send the header `Authorization: Bearer KEY`"
            headers_out = {"www-authenticate": "Bearer"}
            raise ApiError(401, "invalid_api_key", message, headers=headers_out)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            message = "send JSON: the header must be `Content-Type: application/json`"
            raise ApiError(415, "unsupported_media_type", message)
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise ApiError(415, "unsupported_encoding", "compressed bodies are not taken")
        most = self._limits["body_bytes"]
        length = headers.get(b"content-length")
        if length is not None and (not length.isdigit() or int(length) > most):
            raise ApiError(413, "body_too_large", f"the body is larger than {most} bytes")
        seconds = self._limits.seconds("body_seconds")
        chunks, size, more = [], 0, True
        try:
            async with asyncio.timeout(seconds):
                while more:
                    message_in = await receive()
                    if message_in["type"] != "http.request":
                        # also what granian says of a malformed chunk: it can still be answered
                        raise ApiError(400, "body_incomplete", "the body broke off")
                    chunks.append(message_in.get("body", b""))
                    size += len(chunks[-1])
                    if size > most:
                        raise ApiError(413, "body_too_large", f"more than {most} bytes of body")
                    more = message_in.get("more_body", False)
        except TimeoutError:
            message = f"the body did not arrive within {seconds:g} s"
            raise ApiError(408, "body_timeout", message) from None
        return b"".join(chunks)

    def _record(self, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.began
        self._metrics.finished(exchange.path, exchange.status, seconds)
        if exchange.status in (408, 413, 429):
            self._metrics.rejected(str(exchange.entry.get("error", "")).partition(":")[0])
        if self._log is not None:
            entry = {**exchange.entry, "seconds": round(seconds, 6), "status": exchange.status}
            if not self._log.write({**entry, "outcome": exchange.outcome}):
                self._metrics.log_dropped()


class _Exchange:
    """One request's answer: its id, whether headers are out, and its line in the log."""

    def __init__(self, scope: Scope, send: Send, write_seconds: float) -> None:
        self.began = time.perf_counter()
        self.path, self.status, self.outcome = str(scope["path"]), 0, "cut"
        self.id = f"{KINDS.get(self.path, 'req')}-{uuid.uuid4().hex}"
        self._send, self._write_seconds = send, write_seconds
        self.entry: dict[str, Any] = {
            "id": self.id,
            "time": round(time.time(), 3),
            "method": scope["method"],
            "endpoint": self.path[:200],
        }

    async def send(self, message: Message) -> None:
        """Pass a message on with the common headers; TimeoutError where the reader stands still."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = (b"x-request-id", self.id.encode())
            message["headers"] = [*message.get("headers", ()), own, *SAFE]
        async with asyncio.timeout(self._write_seconds):
            await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.outcome = "whole"

    async def refuse(self, error: ApiError) -> None:
        """Answer with an error, unless an answer has begun: then it just ends unfinished."""
        self.entry.setdefault("error", f"{error.code}: {error.message}"[:500])
        if self.status:
            return
        body = error.encoded()
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        pairs = [(k.encode(), v.encode()) for k, v in {**headers, **error.headers()}.items()]
        try:
            await self.send(
                {"type": "http.response.start", "status": error.status, "headers": pairs}
            )
            await self.send({"type": "http.response.body", "body": body})
        except (TimeoutError, ConnectionError):
            self.outcome = "gone"


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body once, then what the connection says."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _without_port(host: str) -> str:
    if host.startswith("["):  # [::1]:8080
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
