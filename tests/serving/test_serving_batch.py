"""Several requests in one step: the bytes of each are those it has alone, and none stalls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_fake import FakeSession, Sink, fake_runtime
from serving_process import HERE, wait_until

from gristmill.serving.decode import PREFILL, Event, Finish, Piece, Task, decode
from gristmill.serving.engine import Engine, Failure, Job
from gristmill.serving.runtime import Logits, Runtime, Slot, eval_in_turns

sys.path.insert(0, str(HERE.parent / "runtime"))
N_CTX = 1024


def answer(events: list[Event | Failure]) -> list[Any]:
    pieces = [event for event in events if isinstance(event, Piece)]
    ends = [event.stop_type for event in events if isinstance(event, Finish)]
    return [
        "".join(piece.text for piece in pieces),
        [i for piece in pieces for i in piece.ids],
        [score for piece in pieces for score in piece.scores],
        ends,
    ]


class Recorder:
    """A runtime's eval_batch that remembers how many ids each session got."""

    def __init__(self, runtime: Runtime) -> None:
        self.batches: list[list[int]] = []
        self._inner = runtime.eval_batch
        self.runtime = replace(runtime, eval_batch=self)

    def __call__(self, sessions: list[Any], ids: list[list[int]]) -> Logits:
        self.batches.append([len(own) for own in ids])
        return self._inner(sessions, ids)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    pytest.importorskip("gristmill._C")
    pytest.importorskip("tokenizers")
    pytest.importorskip("gguf")
    from tiny import Shape, write_model

    from gristmill.serving.model import load_runtime

    folder: Path = tmp_path_factory.mktemp("batch")
    return load_runtime(write_model(folder, Shape(context=N_CTX)))


@pytest.fixture
def make() -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def maker(runtime: Runtime, slots: int) -> Engine:
        made.append(Engine(runtime, n_ctx=N_CTX, slots=slots, queue=64, seconds=60))
        return made[-1]

    yield maker
    for engine in made:
        assert engine.stop()


def tasks(seed: int) -> list[Task]:
    """Prompts from 1 to 500 ids, greedy and hot, with and without scores and echo."""
    rng = np.random.default_rng(seed)
    made = []
    for number, length in enumerate(np.geomspace(1, 500, 16).astype(int)):
        prompt = tuple(int(i) for i in rng.integers(0, 250, length))
        options: dict[str, Any] = {"seed": number, "temperature": (number % 3) / 2}
        options["logprobs"] = 2 if number % 4 == 0 else None
        made.append(Task(prompt, 3 + 5 * number % 40, echo=number % 8 == 0, **options))
    return [made[i] for i in rng.permutation(len(made))]


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8])
def test_batched_is_serial_byte_for_byte(
    slots: int, real: Runtime, make: Callable[..., Engine]
) -> None:
    recorder = Recorder(real)
    wanted = tasks(slots)
    engine = make(recorder.runtime, slots)
    sinks = [Sink() for _ in wanted]
    cancelled: list[Job] = []
    for number, (task, sink) in enumerate(zip(wanted, sinks, strict=True)):
        engine.submit([task], lambda _, sink=sink: sink)
        if number % 3 == 0:  # one that leaves while it is evaluated beside the others
            cancelled += engine.submit([replace(task, max_tokens=400)], lambda _: Sink())
        if cancelled and number % 2:
            cancelled.pop().cancel()
    for job in cancelled:
        job.cancel()
    assert all(sink.done.wait(60) for sink in sinks)
    for task, sink in zip(wanted, sinks, strict=True):
        alone = Slot(real.new_session(N_CTX), [])
        assert answer(sink.events) == answer(list(decode(real, alone, task)))
    assert max((len(batch) for batch in recorder.batches), default=1) == slots


def test_a_long_prompt_does_not_stall_answers_or_short_prompts(
    make: Callable[..., Engine],
) -> None:
    recorder = Recorder(fake_runtime(N_CTX, seconds=0.0005, eos=-100.0))
    engine = make(recorder.runtime, 4)
    running, long, short = Sink(), Sink(), Sink()
    jobs = engine.submit([Task((1, 2), 900)], lambda _: running)
    wait_until(lambda: len(running.events) > 3)
    for prompt, sink in ((900, long), (900, Sink())):
        jobs += engine.submit([Task(tuple([7] * prompt), 1)], lambda _, sink=sink: sink)
    engine.submit([Task((9,) * 40, 1)], lambda _: short)
    assert short.done.wait(20)
    assert not long.done.is_set()
    assert long.done.wait(20)
    for job in jobs:
        job.cancel()
    mixed = [batch for batch in recorder.batches if max(batch) > 1]
    assert len(mixed) >= 900 // PREFILL
    for batch in mixed:  # every step has the next id of the answer, and a bounded share of prompts
        assert min(batch) == 1
        assert sum(size for size in batch if size > 1) <= PREFILL


class Broken(FakeSession):
    """Fails on a marked token, after taking it."""

    def eval_all(self, ids: list[int]) -> Any:
        rows = super().eval_all(ids)
        if 7 in ids:
            raise RuntimeError("kernel failed")
        return rows


def test_one_that_fails_in_a_step_takes_no_other_along(make: Callable[..., Engine]) -> None:
    fake = fake_runtime(N_CTX, eos=-100.0)
    runtime = Runtime(fake.model, lambda n: Broken(n, 0.0, -100.0), fake.sample, eval_in_turns)
    engine = make(runtime, 4)
    good = [Task((50 + i,) * 20, 60, seed=i, logit_bias={7: -100.0}) for i in range(3)]
    sinks = [Sink() for _ in good]
    for task, sink in zip(good, sinks, strict=True):
        engine.submit([task], lambda _, sink=sink: sink)
    bad = Sink()
    engine.submit([Task((1, 7), 5)], lambda _: bad)
    assert all(sink.done.wait(20) for sink in (*sinks, bad))
    failure = bad.events[-1]
    assert isinstance(failure, Failure)
    assert "kernel failed" in failure.message
    for task, sink in zip(good, sinks, strict=True):
        alone = Slot(fake.new_session(N_CTX), [])
        assert answer(sink.events) == answer(list(decode(fake, alone, task)))
