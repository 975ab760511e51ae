"""What stands still: readers, and the loop itself. Seen at the application, not through buffers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from serving_fake import fake_runtime

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from pydantic import BaseModel, ValidationError

from gristmill.serving.answers import Choice
from gristmill.serving.app import create_app
from gristmill.serving.chat_format import chat_format
from gristmill.serving.decode import Finish, Piece, Task
from gristmill.serving.engine import Engine
from gristmill.serving.guard import Guard
from gristmill.serving.http_errors import ApiError
from gristmill.serving.limits import Limits
from gristmill.serving.metrics import Metrics
from gristmill.serving.schema import ChatBody, CompletionBody, DetokenizeBody, InfillBody
from gristmill.serving.service import Service

HEADERS = [(b"host", b"localhost"), (b"content-type", b"application/json")]


def scope(method: str = "GET") -> dict[str, Any]:
    return {"type": "http", "method": method, "path": "/health", "headers": HEADERS, "client": None}


async def nothing() -> dict[str, Any]:
    await asyncio.sleep(60)
    return {"type": "http.disconnect"}


def guard(app: Any, *changes: str) -> Guard:
    return Guard(app, Limits(changes), api_key=None, hosts=None, metrics=Metrics(), log=None)


def test_unread_answers_free_their_slot() -> None:
    engine = Engine(fake_runtime(4096, eos=-100.0), n_ctx=4096, slots=1, queue=1, seconds=60)
    limits = Limits(["unsent_bytes=4096"])
    service = Service(engine, limits, Metrics(), "fake", 0)

    async def stall() -> None:
        run = service.submit([Task((65,), 4000)], time.perf_counter())
        async with asyncio.timeout(10):
            while not run.jobs[0].cancelled:
                await asyncio.sleep(0.005)
            while engine.running:
                await asyncio.sleep(0.005)
        with pytest.raises(ApiError) as caught:
            async for _ in run.events():
                pass
        assert caught.value.status == 503

    asyncio.run(stall())
    assert engine.counters.generated_tokens < 1000
    assert engine.stop()


def test_unread_scores_count_as_their_bytes() -> None:
    """Echo with 20 alternatives: about 100 kB of JSON for 128 ids, none of it text."""
    engine = Engine(fake_runtime(4096, eos=-100.0), n_ctx=4096, slots=1, queue=1, seconds=60)
    service = Service(engine, Limits(), Metrics(), "fake", 0)
    task = Task((65,) * 4000, 1, logprobs=20, echo=True)

    async def stall() -> None:
        run = service.submit([task], time.perf_counter())
        while engine.running or engine.queued:
            await asyncio.sleep(0.005)
        assert run.jobs[0].cancelled

    asyncio.run(asyncio.wait_for(stall(), 20))
    assert engine.stop()


def test_one_answer_larger_than_the_limit_is_delivered() -> None:
    """Whoever reads gets it: only what waits behind something unread counts against a reader."""
    engine = Engine(fake_runtime(4096, eos=-100.0), n_ctx=4096, slots=1, queue=1, seconds=60)
    service = Service(engine, Limits(["unsent_bytes=4096"]), Metrics(), "fake", 0)

    async def read() -> int:
        run = service.submit([Task((65,) * 100, 0, logprobs=20, echo=True)], time.perf_counter())
        pieces = [item[1] async for item in run.events() if item is not None]
        return sum(len(piece.scores) for piece in pieces if isinstance(piece, Piece))

    assert asyncio.run(asyncio.wait_for(read(), 20)) == 100
    assert engine.stop()


async def ask(app: Any, path: str, **body: Any) -> tuple[int, Any]:
    """Status and JSON of one answer; a GET without a body."""
    received = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return received.pop() if received else await nothing()

    async def send(message: Any) -> None:
        sent.append(message)

    asked = scope("POST" if body else "GET")
    await app({**asked, "path": path, "query_string": b"", "raw_path": b""}, receive, send)
    return sent[0]["status"], json.loads(b"".join(m.get("body", b"") for m in sent))


def test_a_whole_answer_is_not_cut_where_the_loop_was_busy() -> None:
    """Nobody reads it before it is whole; only a stream has a reader to wait for."""
    engine = Engine(fake_runtime(4096), n_ctx=4096, slots=1, queue=1, seconds=60)
    app = create_app(engine, Limits(), name="fake", api_key=None, hosts=None, log=None)

    async def busy() -> tuple[int, Any]:
        fields = {"prompt": [65] * 2600, "max_tokens": 0, "logprobs": 20, "echo": True}
        asked = asyncio.create_task(ask(app, "/v1/completions", **fields))
        while not engine.running:
            await asyncio.sleep(0)
        while engine.running:
            time.sleep(0.01)
        return await asked

    status, answer = asyncio.run(asyncio.wait_for(busy(), 20))
    assert engine.stop()
    assert status == 200, answer
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == 2600


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (CompletionBody, {"prompt": [True] * 1000}),
        (CompletionBody, {"prompt": [[None] * 1000]}),
        (CompletionBody, {"prompt": "x", "stop": [1] * 1000}),
        (ChatBody, {"messages": [{}] * 1000}),
        (ChatBody, {"messages": [{"role": "user", "content": [{}] * 1000}]}),
        (InfillBody, {"input_extra": [1] * 1000}),
        (InfillBody, {"stop": [1] * 1000, "samplers": [1] * 1000, "response_fields": [1] * 1000}),
        (DetokenizeBody, {"tokens": [""] * 1000}),
    ],
)
def test_a_wrong_list_is_left_at_its_first_wrong_entry(
    model: type[BaseModel], body: dict[str, Any]
) -> None:
    """A list of 1 MiB would be half a million errors: seconds in which nobody is served."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    assert caught.value.error_count() < 20


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize"])
def test_a_long_prompt_keeps_nobody_else_waiting(path: str) -> None:
    """1 MiB may take the tokenizer two seconds."""
    runtime = fake_runtime()
    tokenizing, done = threading.Event(), threading.Event()

    def tokenize(text: bytes, special: bool) -> list[int]:
        tokenizing.set()
        assert done.wait(5)
        return [65]

    runtime.model.tokenize = tokenize  # type: ignore[method-assign]
    engine = Engine(runtime, n_ctx=256, slots=1, queue=1, seconds=60)
    app = create_app(engine, Limits(), name="fake", api_key=None, hosts=None, log=None)

    async def both() -> tuple[int, int]:
        asked = asyncio.create_task(ask(app, path, prompt="x" * 100_000))
        while not tokenizing.is_set():
            await asyncio.sleep(0.001)
        health = await ask(app, "/health")
        done.set()
        return health[0], (await asked)[0]

    assert asyncio.run(asyncio.wait_for(both(), 20)) == (200, 200)
    assert engine.stop()


@pytest.mark.parametrize(
    ("path", "fields"),  # each asks for 42 log-probabilities
    [
        ("/v1/completions", {"prompt": [65] * 20, "echo": True, "logprobs": 1, "max_tokens": 1}),
        ("/v1/completions", {"prompt": ["a", "b"], "n": 3, "logprobs": 0, "max_tokens": 7}),
        (
            "/v1/chat/completions",
            {
                "messages": [{"role": "user", "content": "x"}],
                **{"logprobs": True, "top_logprobs": 20, "max_tokens": 2},
            },
        ),
    ],
)
def test_log_probabilities_of_one_request_are_limited(path: str, fields: dict[str, Any]) -> None:
    """Each is kept until all are there: 64 prompts of 4096 tokens with 20 would be 1.5 GiB."""
    runtime = fake_runtime()
    chat = chat_format(runtime.model, "plain")
    for limit, status in ((42, 200), (41, 400)):
        engine = Engine(runtime, n_ctx=256, slots=1, queue=64, seconds=60)
        limits = Limits([f"scores={limit}"])
        app = create_app(engine, limits, name="m", api_key=None, hosts=None, log=None, chat=chat)
        got, answer = asyncio.run(ask(app, path, **fields))
        assert engine.stop()
        assert got == status
        if status == 400:
            assert answer["error"]["param"] == "logprobs"
            assert "42" in answer["error"]["message"]


def test_long_answers_are_not_kept_for_votes() -> None:
    """The log has them; 256 of the largest requests would be gigabytes."""
    engine = Engine(fake_runtime(4096, eos=-100.0), n_ctx=4096, slots=1, queue=8, seconds=60)
    service = Service(engine, Limits(), Metrics(), "fake", 0)
    kept = {}
    for tokens in (100, 4000):
        choices = [Choice(), Choice()]
        for choice in choices:
            choice.add(Finish("limit", "", 1, 0, tokens, 0.0, 0.0))
        state = SimpleNamespace(entry={"id": str(tokens)}, size=100)
        service.finished(SimpleNamespace(state=state), choices, 1)  # type: ignore[arg-type]
        kept[tokens] = service.recent.get(str(tokens)) is not None
    assert kept == {100: True, 4000: False}
    assert engine.stop()


def test_a_body_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard parses it to check it; the route gets what it found."""
    parsed: list[Any] = []
    true = json.loads

    def counted(text: Any, **options: Any) -> Any:
        parsed.append(text)
        return true(text, **options)

    monkeypatch.setattr(json, "loads", counted)
    engine = Engine(fake_runtime(), n_ctx=256, slots=1, queue=1, seconds=60)
    app = create_app(engine, Limits(), name="fake", api_key=None, hosts=None, log=None)
    status, answer = asyncio.run(ask(app, "/tokenize", prompt="def f"))
    assert engine.stop()
    assert (status, answer["count"]) == (200, 2)
    assert sum(isinstance(text, str) for text in parsed) == 1  # bytes: the answer, read by `ask`


def test_a_stalled_write_ends_the_request() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    began = time.monotonic()
    asyncio.run(guard(app, "write_seconds=0.1")(scope(), nothing, stuck))
    assert time.monotonic() - began < 30


def test_an_application_that_fails_answers_500() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(app)(scope(), nothing, send))
    assert sent[0]["status"] == 500
    assert b"internal_error" in sent[1]["body"]
    assert b"broken" not in sent[1]["body"]


def test_other_protocols_are_left_alone() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("reached the application")

    asyncio.run(guard(app)({"type": "websocket"}, nothing, nothing))  # type: ignore[arg-type]
