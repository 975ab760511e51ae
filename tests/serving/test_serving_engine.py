"""The engine's thread: order, room, cancellation, failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from serving_fake import FakeSession, Sink, fake_runtime
from serving_process import wait_until

from gristmill.serving.decode import Event, Finish, Task
from gristmill.serving.engine import Engine, Failure, Job, QueueFull, Stopped
from gristmill.serving.runtime import Runtime

PROMPT = tuple(b"def f(x):")


def start(engine: Engine, task: Task) -> tuple[Sink, Job]:
    sink = Sink()
    return sink, engine.submit([task], lambda _: sink)[0]


@pytest.fixture
def make() -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def maker(runtime: Runtime | None = None, **options: Any) -> Engine:
        settings = {"n_ctx": 4096, "slots": 2, "queue": 2, "seconds": 60.0, **options}
        made.append(Engine(runtime or fake_runtime(4096, eos=-100.0), **settings))
        return made[-1]

    yield maker
    for engine in made:
        assert engine.stop()


def test_together_gives_what_alone_gives(make: Callable[..., Engine]) -> None:
    tasks = [Task(tuple(b"prompt %d" % (i % 5)), 30, seed=i) for i in range(12)]
    alone = []
    engine = make(slots=1, queue=20)
    for task in tasks:
        sink, _ = start(engine, task)
        assert sink.done.wait(10)
        alone.append(sink.ids)
    engine = make(slots=3, queue=20)
    sinks = [start(engine, task)[0] for task in tasks]
    assert all(sink.done.wait(10) for sink in sinks)
    assert [sink.ids for sink in sinks] == alone
    assert engine.counters.generated_tokens == 12 * 30


def test_conversations_that_begin_alike_keep_a_cache_each(make: Callable[..., Engine]) -> None:
    """All texts share the begin-of-text id, all chats a system message."""
    engine = make(slots=2)
    for text, cached in ((b"first one", 0), (b"second one", 0), (b"first one!", 11), (b"secon", 6)):
        sink, _ = start(engine, Task((1, 2, *text), 1))
        assert sink.done.wait(10)
        end = sink.events[-1]
        assert isinstance(end, Finish)
        assert end.cached_tokens == cached, text


def test_short_requests_pass_a_long_one(make: Callable[..., Engine]) -> None:
    engine = make(fake_runtime(4096, seconds=0.002, eos=-100.0))
    long, job = start(engine, Task(PROMPT, 2000))
    wait_until(lambda: len(long.ids) > 3)
    short, _ = start(engine, Task(PROMPT, 3))
    assert short.done.wait(10)
    assert not long.done.is_set()
    job.cancel()


@pytest.mark.parametrize("slots", [1, 2])
def test_one_request_of_many_prompts_waits_its_turn(
    make: Callable[..., Engine], slots: int
) -> None:
    engine = make(fake_runtime(4096, seconds=0.002, eos=-100.0), slots=slots, queue=40)
    many: list[Sink] = []
    engine.submit([Task(PROMPT, 10)] * 30, lambda _: many.append(Sink()) or many[-1])
    wait_until(lambda: bool(many[0].events))
    few = [start(engine, Task(PROMPT, 10))[0] for _ in range(2)]
    assert all(sink.done.wait(10) for sink in few)
    assert sum(sink.done.is_set() for sink in many) <= 2 + 4 * slots
    assert all(sink.done.wait(20) for sink in many)


def test_full_queue_refuses_all_of_a_request(make: Callable[..., Engine]) -> None:
    engine = make(fake_runtime(4096, seconds=0.005, eos=-100.0))
    jobs = [start(engine, Task(PROMPT, 4000))[1] for _ in range(2)]
    wait_until(lambda: engine.running == 2)
    with pytest.raises(QueueFull):
        engine.submit([Task(PROMPT, 1)] * 3, lambda _: Sink())
    assert engine.queued == 0
    engine.submit([Task(PROMPT, 1)] * 2, lambda _: Sink())
    with pytest.raises(QueueFull):
        start(engine, Task(PROMPT, 1))
    for job in jobs:
        job.cancel()
    wait_until(lambda: engine.running == engine.queued == 0)
    sink, _ = start(engine, Task(PROMPT, 1))
    assert sink.done.wait(10)


def test_cancelling_frees_the_slot_and_says_nothing_more(make: Callable[..., Engine]) -> None:
    engine = make(slots=1)
    sink, job = start(engine, Task(PROMPT, 4000))
    waiting, second = start(engine, Task(PROMPT, 5))
    second.cancel()
    job.cancel()
    wait_until(lambda: engine.running == engine.queued == 0)
    seen = len(sink.events)
    after, _ = start(engine, Task(PROMPT, 5))
    assert after.done.wait(10)
    assert len(sink.events) == seen
    assert not waiting.events
    assert engine.counters.cancelled == 2


class Broken(FakeSession):
    """Fails on a marked token."""

    def eval_all(self, ids: list[int]) -> Any:
        if 7 in ids:
            raise RuntimeError("kernel failed")
        return super().eval_all(ids)


def test_a_failing_request_does_not_take_others_along(make: Callable[..., Engine]) -> None:
    fake = fake_runtime(4096, eos=-100.0)
    engine = make(Runtime(fake.model, Broken, fake.sample), slots=1)
    good, _ = start(engine, Task(PROMPT, 5))
    bad, _ = start(engine, Task((7,), 5))
    later, _ = start(engine, Task(PROMPT, 5))
    assert all(sink.done.wait(10) for sink in (good, bad, later))
    failure = bad.events[-1]
    assert isinstance(failure, Failure)
    assert "kernel failed" in failure.message
    assert later.ids == good.ids
    assert engine.alive


class Stuck(FakeSession):
    """Cannot go back after a step that failed."""

    def truncate(self, n: int) -> None:
        raise RuntimeError("cannot go back")


def fails(*_: Any) -> Any:
    raise RuntimeError("no such kernel")


@pytest.mark.parametrize("what", ["session", "few rows", "task", "engine"])
def test_the_worker_outlives_every_error_and_tells_whoever_waits(
    make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    fake = fake_runtime(4096, eos=-100.0)
    runtime = {
        "session": Runtime(fake.model, Stuck, fake.sample, fails),
        "few rows": Runtime(fake.model, fake.new_session, fake.sample, lambda *_: []),
    }.get(what, fake)
    engine = make(runtime, queue=8)
    wrong = Task(PROMPT, 5, stop=("",)) if what == "task" else Task(PROMPT, 5)
    with monkeypatch.context() as patch:
        if what == "engine":
            patch.setattr(engine, "_chosen", fails)
        sinks: list[Sink] = []
        engine.submit([wrong] * 4, lambda _: sinks.append(Sink()) or sinks[-1])
        assert all(sink.done.wait(10) for sink in sinks)
    ends = {type(sink.events[-1]) for sink in sinks}
    assert ends == ({Finish} if what == "few rows" else {Failure})  # one by one it can be done
    wait_until(lambda: engine.running == engine.queued == 0)
    assert engine.alive
    sink, _ = start(engine, Task(PROMPT, 5))
    assert sink.done.wait(10)
    assert isinstance(sink.events[-1], Finish)


def test_no_memory_for_a_cache_fails_only_that_request(make: Callable[..., Engine]) -> None:
    fake = fake_runtime(4096)
    room = [False]

    def session(n_ctx: int) -> FakeSession:
        if not room[0]:
            raise MemoryError("no room for the cache")
        return FakeSession(n_ctx)

    engine = make(Runtime(fake.model, session, fake.sample))
    sink, _ = start(engine, Task(PROMPT, 2))
    assert sink.done.wait(10)
    assert isinstance(sink.events[-1], Failure)
    room[0] = True
    sink, _ = start(engine, Task(PROMPT, 2))
    assert sink.done.wait(10)
    assert isinstance(sink.events[-1], Finish)


def test_time_limit_ends_running_and_waiting(make: Callable[..., Engine]) -> None:
    runtime = fake_runtime(4096, seconds=0.01, eos=-100.0)
    engine = make(runtime, slots=1, seconds=0.15)
    sinks = [start(engine, Task(PROMPT, 4000))[0] for _ in range(2)]
    assert all(sink.done.wait(10) for sink in sinks)
    for sink in sinks:
        last = sink.events[-1]
        assert isinstance(last, Failure)
        assert last.code == "request_timeout"


def test_a_receiver_that_raises_is_dropped(make: Callable[..., Engine]) -> None:
    engine = make()

    def gone(event: Event | Failure) -> None:
        raise RuntimeError("event loop is closed")

    engine.submit([Task(PROMPT, 4000)], lambda _: gone)
    sink, _ = start(engine, Task(PROMPT, 3))
    assert sink.done.wait(10)
    wait_until(lambda: engine.running == 0)


def test_stop_ends_everything() -> None:
    engine = Engine(fake_runtime(4096), n_ctx=4096, slots=1, queue=4, seconds=60)
    for _ in range(3):
        start(engine, Task(PROMPT, 4000))
    began = time.monotonic()
    assert engine.stop()
    assert time.monotonic() - began < 10
    with pytest.raises(Stopped):
        start(engine, Task(PROMPT, 1))
