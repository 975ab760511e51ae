"""The HTTP application: routes of one served model inside the guard."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Coroutine
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .chat_completions import answer_chat
from .chat_format import ChatFormat
from .completions import complete
from .engine import Engine
from .feedback import Feedback
from .fim import fim_tokens, with_bos
from .guard import App, Guard
from .http_errors import ApiError, bad_value
from .infill import infill
from .limits import Limits
from .metrics import Metrics
from .monitor import Monitor
from .request_log import RequestLog
from .schema import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    FeedbackBody,
    InfillBody,
    TokenizeBody,
    first_problem,
)
from .service import Disconnected, Service
from .text import token_name

# of a route that answers with a JSON object or, where the request asks for it, a stream of them
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/event-stream": {}}}
}


def create_app(
    engine: Engine,
    limits: Limits,
    *,
    name: str,
    api_key: str | None,
    hosts: frozenset[str] | None,
    log: RequestLog | None,
    selftests: int = 0,
    chat: ChatFormat | None = None,
    monitor: Monitor | None = None,
) -> App:
    """The ASGI application of `engine`, called `name` in /v1/models."""
    metrics = Metrics()
    metrics.watch(engine, name)
    if monitor is not None:
        metrics.monitor(monitor)
    service = Service(engine, limits, metrics, name, int(time.time()), selftests, chat)
    service.monitor = monitor
    feedback = Feedback(log.path if log is not None else None, service.recent, limits)
    app = FastAPI(
        title="gristmill", docs_url=None, redoc_url=None, redirect_slashes=False
    )  # their pages load from a CDN
    app.router.route_class = _Route
    _add_errors(app)
    _add_generation(app, service)
    _add_feedback(app, service, feedback)
    _add_state(app, service, feedback)
    _add_tokenizer(app, service)
    _add_page(app)
    return Guard(app, limits, api_key=api_key, hosts=hosts, metrics=metrics, log=log)


class _Request(Request):
    async def json(self) -> Any:
        """The body as the guard parsed it."""
        return self.state.json


class _Route(APIRoute):
    """A route that does not parse the body again."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_Request(request.scope, request.receive))

        return handle


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        request.state.entry["error"] = f"{error.code}: {error.message}"[:500]
        return JSONResponse(error.body(), error.status, headers=error.headers())

    @app.exception_handler(RequestValidationError)
    async def wrong_field(request: Request, error: RequestValidationError) -> Response:
        where, message = first_problem(list(error.errors()))
        text = f"field {where[:100]!r}: {message}" if where else message
        return await api_error(request, bad_value(where.partition(".")[0][:100], text))

    @app.exception_handler(Disconnected)
    async def left(request: Request, error: Disconnected) -> Response:
        return Response(status_code=499)  # nobody reads it; nginx's number for the log

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        entry = request.state.entry
        entry["error"] = f"{type(error).__name__}: {error}"[:500]
        message = f"internal error; the server's log has it under {entry['id']}"
        answer = ApiError(500, "internal_error", message)
        return JSONResponse(answer.body(), 500, headers=answer.headers())

    @app.exception_handler(HTTPException)
    async def wrong_route(request: Request, error: HTTPException) -> Response:
        codes = {404: "not_found", 405: "method_not_allowed"}
        code = codes.get(error.status_code, "invalid_request")
        message = f"{request.method} {request.url.path[:200]}: {error.detail}"
        answer = ApiError(error.status_code, code, message, headers=error.headers)
        return await api_error(request, answer)


def _add_generation(app: FastAPI, service: Service) -> None:
    @app.post("/v1/completions", responses=STREAMED)
    async def completions(request: Request, body: CompletionBody) -> Response:
        return await complete(service, request, body)

    @app.post("/v1/chat/completions", responses=STREAMED)
    async def chat_completions(request: Request, body: ChatBody) -> Response:
        return await answer_chat(service, request, body)

    @app.post("/infill", responses=STREAMED)
    async def fill(request: Request, body: InfillBody) -> Response:
        return await infill(service, request, body)


def _add_feedback(app: FastAPI, service: Service, feedback: Feedback) -> None:
    @app.post("/v1/feedback")
    async def vote(body: FeedbackBody) -> dict[str, Any]:
        taken = await feedback.take(body)
        service.metrics.voted(body.rating)
        return taken


def _add_state(app: FastAPI, service: Service, feedback: Feedback) -> None:
    def described() -> dict[str, Any]:
        return {
            "id": service.name,
            "object": "model",
            "created": service.created,
            "owned_by": "gristmill",
            "meta": {
                "digest": service.model.digest,
                "n_ctx": service.engine.n_ctx,
                "n_vocab": service.model.vocab_size,
                "fill_in_the_middle": fim_tokens(service.model.metadata) is not None,
                "chat_template": service.chat.template if service.chat is not None else None,
                "feedback": feedback.kept,
                "selftests": service.selftests,
            },
        }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name != service.name:
            message = f"model {name[:100]!r} is not served here; the model is {service.name!r}"
            raise ApiError(404, "model_not_found", message, param="model")
        return described()

    @app.get("/health")
    @app.get("/health/ready")
    async def health() -> dict[str, str]:
        if not service.engine.alive:
            raise ApiError(503, "unavailable", "the engine has stopped", retry_seconds=5)
        return {"status": "ok"}

    @app.get("/alerts")
    async def alerts() -> dict[str, Any]:
        watch = service.monitor
        if watch is None:  # --no-monitor
            return {"object": "list", "data": [], "monitor": False}
        shifts = [shift.plain() for shift in watch.shifts.values()]
        return {
            "object": "list",
            "data": watch.alerts.firing(),
            "monitor": True,
            "windows": watch.windows,
            "window": watch.size,
            "probe_nll": watch.probe_nll,
            "drift": shifts,
        }

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_tokenizer(app: FastAPI, service: Service) -> None:
    @app.post("/tokenize")
    def tokenize(body: TokenizeBody) -> dict[str, Any]:  # not async: on a thread of its own
        text = body.text()
        if text is None:
            raise bad_value("prompt", "send `prompt` or `content`")
        ids = service.model.tokenize(text.encode("utf-8"), True)
        if body.add_special_tokens or body.add_special:
            ids = with_bos(service.model, ids)
        return {"tokens": ids, "count": len(ids), "max_model_len": service.engine.n_ctx}

    @app.post("/detokenize")
    def detokenize(body: DetokenizeBody) -> dict[str, Any]:
        size = service.model.vocab_size
        for value in body.tokens:
            if not 0 <= value < size:
                raise bad_value("tokens", f"token id {value}; this model has 0 to {size - 1}")
        data = b"".join(service.model.token_bytes(value) for value in body.tokens)
        text = data.decode("utf-8", errors="replace")
        return {"prompt": text, "content": text}

    @app.get("/tokenizer_info")
    async def tokenizer_info() -> dict[str, Any]:
        def named(token: int) -> str | None:
            return token_name(service.model.token_bytes(token)) if token >= 0 else None

        return {
            "eos_token": named(service.model.eos_id),
            "bos_token": named(service.model.bos_id),
            "chat_template": service.chat.jinja if service.chat is not None else None,
        }


def _add_page(app: FastAPI) -> None:
    page = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    headers = {"content-security-policy": page_policy(page), "cache-control": "no-cache"}

    @app.get("/", response_class=HTMLResponse)
    async def playground() -> Response:
        return Response(page, media_type="text/html", headers=headers)


def page_policy(page: str) -> str:
    """A policy that allows the page's own script and style by hash, and calls to its own server."""

    def hashes(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (hashlib.sha256(part.encode("utf-8")).digest() for part in parts)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
