"""The engine of the server: one worker thread, a bounded queue, a few slots that step together.

Each active request is a generator (decode.py) with a slot, that is a key-value cache. A step reads
the weights once for the next token of every answer, and for at most PREFILL ids of prompts, in
turns: a long prompt keeps neither running answers nor short prompts waiting. A request that waits
takes the free slot whose cache shares the longest beginning with its prompt, or a new one while
that slot holds mostly another text. The bytes of an answer depend on the request alone: sampling is
a function of (seed, position) and the runtime's logits do not depend on what was cached or is
evaluated beside.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .decode import PREFILL, Event, Finish, Piece, Steps, Task, steps_of
from .runtime import Feed, Logits, Runtime, Slot, common_prefix, feed_together


class QueueFull(Exception):
    """The queue has no room for a request; `waiting` is its length."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests are waiting")
        self.waiting = waiting


class Stopped(Exception):
    """The engine no longer takes requests."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request ended without an answer."""

    code: Literal["request_timeout", "generation_failed", "unavailable"]
    message: str


Deliver = Callable[["Event | Failure"], None]  # called on the worker thread; must not block


@dataclass
class Turn:
    """When one of the jobs of a request was last started, at first when they came."""

    last: float


@dataclass(eq=False)
class Job:
    """A submitted task. `cancel()` frees its slot before the next step."""

    task: Task
    deliver: Deliver
    deadline: float  # time.monotonic()
    turn: Turn
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None
    cancelled: bool = False
    steps: Steps | None = None
    slot: Slot | None = None
    feed: Feed | None = None  # what its generator waits for
    fed: int = 0  # the step in which it last got some of its prompt

    def cancel(self) -> None:
        """Ask the engine to drop the job; nothing is delivered after the current step."""
        self.cancelled = True


@dataclass
class Counters:
    """Totals since the start, read by /metrics."""

    steps: int = 0
    rows: int = 0  # ids evaluated in all steps
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    cancelled: int = 0
    failed: int = 0


class Engine:
    """Runs tasks on one thread; `submit` is thread safe, results arrive through `deliver`."""

    def __init__(
        self, runtime: Runtime, *, n_ctx: int, slots: int, queue: int, seconds: float
    ) -> None:
        self.runtime, self.n_ctx = runtime, n_ctx
        self.counters = Counters()
        self._limits = (slots, queue, seconds)
        self._free: list[Slot] = []  # least recently used first
        self._made = 0
        self._waiting: deque[Job] = deque()
        self._active: list[Job] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gristmill-engine", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Jobs waiting for a slot."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Jobs that have a slot."""
        return len(self._active)

    @property
    def room(self) -> int:
        """Jobs that an idle engine takes at one time."""
        slots, queue, _ = self._limits
        return slots + queue

    @property
    def alive(self) -> bool:
        """Whether the worker thread runs and takes jobs."""
        return self._thread.is_alive() and not self._stopping

    def submit(self, tasks: Sequence[Task], deliver: Callable[[int], Deliver]) -> list[Job]:
        """Queue all of `tasks` or none; `deliver(i)` makes the receiver of task i.

        Raises QueueFull where the queue has not room for all, Stopped after `stop`.
        """
        slots, room, seconds = self._limits
        now = time.monotonic()
        turn = Turn(now)  # one for all: a request of many tasks does not keep the others waiting
        with self._wake:
            if self._stopping:
                raise Stopped
            idle = slots - len(self._active)
            if len(self._waiting) + len(tasks) > room + max(idle, 0):
                raise QueueFull(len(self._waiting))
            jobs = [Job(task, deliver(i), now + seconds, turn) for i, task in enumerate(tasks)]
            self._waiting.extend(jobs)
            self._wake.notify()
        return jobs

    def stop(self, seconds: float = 10.0) -> bool:
        """Cancel everything and end the worker; returns whether it ended within `seconds`."""
        with self._wake:
            self._stopping = True
            for job in [*self._waiting, *self._active]:
                job.cancel()
            self._wake.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._active or self._stopping):
                    self._wake.wait()
                if self._stopping and not (self._waiting or self._active):
                    return
            try:
                with self._wake:
                    self._admit()
                self._step()
            except Exception as error:  # ours: no thread, no answers, so this one must not end
                self._drop_all(error)

    def _admit(self) -> None:
        self._waiting = deque(job for job in self._waiting if not self._expired(job))
        while self._waiting:
            job = min(self._waiting, key=lambda job: job.turn.last)
            try:
                slot = self._take_slot(job.task.prompt)
            except Exception as error:  # no memory for even one cache: this request fails, not all
                self._waiting.remove(job)
                self._fail(job, error)
                continue
            if slot is None:
                return
            self._waiting.remove(job)
            job.slot, job.fed = slot, self.counters.steps
            job.started = job.turn.last = time.monotonic()
            self._active.append(job)

    def _take_slot(self, prompt: Sequence[int]) -> Slot | None:
        best = max(self._free, key=lambda slot: common_prefix(slot.ids, prompt), default=None)
        shared = common_prefix(best.ids, prompt) if best is not None else 0
        # of another text more would be forgotten than this one shares with it
        other = best is None or 2 * shared < len(best.ids)
        if self._made < self._limits[0] and other:
            try:
                slot = Slot(self.runtime.new_session(self.n_ctx), [])
            except (MemoryError, RuntimeError, ValueError):
                if not self._made:
                    raise  # with slots in use the request waits for one of them
            else:
                self._made += 1
                return slot
        if best is not None:
            self._free.remove(best)
        return best

    def _expired(self, job: Job) -> bool:
        if job.cancelled:
            self.counters.cancelled += 1
            if self._stopping:
                self._deliver(job, Failure("unavailable", "the server is stopping"))
            return True
        if time.monotonic() > job.deadline:
            self.counters.failed += 1
            self._deliver(job, Failure("request_timeout", "the request took longer than its limit"))
            return True
        return False

    def _step(self) -> None:
        """One evaluation for all active jobs that have their turn."""
        for job in list(self._active):
            if self._expired(job) or (job.feed is None and not self._advance(job, None)):
                self._retire(job)
        chosen = self._chosen()
        if not chosen:
            return
        self.counters.steps += 1
        slots, feeds = [job.slot for job, _ in chosen], [feed for _, feed in chosen]
        self.counters.rows += sum(len(feed.ids) for feed in feeds)
        results = feed_together(self.runtime, [slot for slot in slots if slot], feeds)
        for (job, _), logits in zip(chosen, results, strict=True):
            if isinstance(logits, Exception):
                self._fail(job, logits)
                self._discard(job)
                self._retire(job)
            elif not self._advance(job, logits):
                self._retire(job)

    def _chosen(self) -> list[tuple[Job, Feed]]:
        """Whose ids are evaluated now: every answer's, and of the prompts those longest ago."""
        ready = [(job, job.feed) for job in self._active if job.feed is not None]
        prompts = [pair for pair in ready if len(pair[1].ids) > 1 or pair[1].every]
        chosen = [pair for pair in ready if pair not in prompts]
        room = PREFILL
        for job, feed in sorted(prompts, key=lambda pair: pair[0].fed):
            if len(feed.ids) <= room:
                room -= len(feed.ids)
                job.fed = self.counters.steps + 1
                chosen.append((job, feed))
        return chosen

    def _advance(self, job: Job, logits: Logits | None) -> bool:
        """Run a job up to its next feed; returns whether it goes on."""
        assert job.slot is not None
        try:
            if job.steps is None:
                job.steps = steps_of(self.runtime, job.slot, job.task)
            while not isinstance(item := job.steps.send(logits), Feed):
                logits = None
                self._count(item)
                self._deliver(job, item)
                if isinstance(item, Finish):
                    return False
        except Exception as error:
            self._fail(job, error)
            self._discard(job)
            return False
        job.feed = item
        return True

    def _fail(self, job: Job, error: Exception) -> None:
        self.counters.failed += 1
        self._deliver(job, Failure("generation_failed", f"{type(error).__name__}: {error}"))

    def _drop_all(self, error: Exception) -> None:
        """Fail every job: what state they are in is unknown."""
        with self._wake:
            for job in [*self._active, *self._waiting]:
                self._fail(job, error)
                if job.slot is not None:
                    self._discard(job)
            self._active.clear()
            self._waiting.clear()

    def _count(self, event: Event) -> None:
        if isinstance(event, Piece):
            self.counters.generated_tokens += len(event.ids)
        elif isinstance(event, Finish):
            self.counters.prompt_tokens += event.prompt_tokens
            self.counters.cached_tokens += event.cached_tokens

    def _deliver(self, job: Job, event: Event | Failure) -> None:
        try:
            job.deliver(event)
        except Exception:  # the receiver's event loop is gone: nobody waits for the rest
            job.cancel()

    def _discard(self, job: Job) -> None:
        """Forget a slot whose session may be in an unknown state."""
        with self._wake:
            job.slot = None
            self._made -= 1

    def _retire(self, job: Job) -> None:
        with self._wake:
            self._active.remove(job)
            if job.steps is not None:
                job.steps.close()
            job.steps = job.feed = None
            if job.slot is not None:
                self._free.append(job.slot)
                job.slot = None
