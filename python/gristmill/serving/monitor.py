"""Watches a served model while nothing else is asked of it: drift of requests and answers against
the reference in its file, and a probe of the weights.

A thread with a session of its own measures one finished request at a time, and only while the
engine is idle: whoever waits for an answer does not wait for this. What a busy server has no time
for is dropped and counted.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from gristmill.checkpoint.reference import Meter, kind_of, log_softmax, window
from gristmill.checkpoint.selftest import IDS_KEY, PROMPTS_KEY

from . import drift
from .alerts import Alerts
from .engine import Engine
from .fim import fim_tokens

KEPT = 512  # finished requests that wait to be measured
REFERENCE = "gristmill.reference"
PROBE, BROKEN = "quality_probe", "monitor"


class Monitor:
    """Measures what `seen` is told; `size` requests of a kind are a window, compared as one."""

    def __init__(self, engine: Engine, alerts: Alerts, *, size: int, probe_seconds: float) -> None:
        self.alerts, self.size = alerts, size
        self.shifts: dict[str, drift.Shift] = {}  # of the last whole window, by feature
        self.windows = self.skipped = self.measured = self.probes = 0
        self.probe_nll: float | None = None
        self._engine, self._every = engine, probe_seconds
        model: Any = engine.runtime.model
        self.reference = _reference(model)
        self._fim = fim_tokens(model.metadata)
        self._meter = Meter(model, engine.runtime.new_session(window(model.n_ctx)))
        self._vectors = _vectors(model, window(model.n_ctx))
        self._expected: float | None = None
        self._values: dict[str, list[dict[str, float]]] = {}
        self._waiting: deque[tuple[Sequence[int], Sequence[int]]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gristmill-monitor", daemon=True)
        self._thread.start()

    def seen(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """A finished sequence, to be measured later; never waits."""
        if not self.reference:
            return
        with self._wake:
            if len(self._waiting) == KEPT:
                self._waiting.popleft()
                self.skipped += 1
            self._waiting.append((prompt, answer))
            self._wake.notify()

    def stop(self, seconds: float = 10.0) -> None:
        """End the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(seconds)

    # -------------------------------------------------------------------------- its thread

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            with self._wake:
                if not self._waiting and not self._stopping:
                    self._wake.wait(max(0.01, due - time.monotonic()))
                if self._stopping:
                    return
                job = self._waiting.popleft() if self._waiting and self._idle() else None
            try:
                if job is not None:
                    self._measure(*job)
                elif time.monotonic() >= due and self._idle():
                    due = time.monotonic() + self._every
                    self._probe()
                else:
                    time.sleep(0.01)  # the engine is at work
            except Exception as error:  # nobody would miss a thread that died
                text = f"the monitor failed, and goes on: {type(error).__name__}: {error}"
                self.alerts.set(BROKEN, True, text=text)

    def _idle(self) -> bool:
        return not self._engine.running and not self._engine.queued

    def _measure(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        kind = kind_of(prompt, self._fim)
        values = self._values.setdefault(kind, [])
        values.append(self._meter.features(prompt, answer))
        self.measured += 1
        if len(values) < self.size:
            return
        del self._values[kind]
        names = sorted({name for one in values for name in one})
        whole = {f"{kind}.{n}": [one[n] for one in values if n in one] for n in names}
        self._judge(drift.compare(whole, self.reference))
        self.windows += 1

    def _judge(self, shifts: list[drift.Shift]) -> None:
        for shift in shifts:
            self.shifts[shift.feature] = shift
            text = (
                f"{shift.feature} has mean {shift.mean:.4g} over {self.size} requests, its "
                f"reference {shift.reference:.4g}: PSI {shift.psi:.3g}, KS {shift.ks:.3g}"
            )
            self.alerts.set(
                f"drift:{shift.feature}", shift.drifted, value=shift.psi, bar=drift.BAR, text=text
            )

    def _probe(self) -> None:
        """The self-test's tokens again: their nats must be those of the start, bit for bit."""
        if not self._vectors:
            return
        nll = _nll(self._meter.session, self._vectors)
        self.probe_nll = nll
        self.probes += 1
        if self._expected is None:
            self._expected = nll
        text = f"the self-test's tokens cost {nll:.9g} nats, at the start {self._expected:.9g}: "
        text += "memory or weights have changed; start the server again"
        self.alerts.set(PROBE, nll != self._expected, value=nll, bar=self._expected, text=text)


def _reference(model: Any) -> dict[str, dict[str, Any]]:
    """The distributions in the file; none where it has none of this form."""
    try:
        found = json.loads(str(model.metadata.get(REFERENCE, "{}")))
    except ValueError:
        return {}
    return {
        name: one
        for name, one in found.items()
        if isinstance(one, dict) and {"sample", "documents"} <= one.keys()
    }


def _vectors(model: Any, room: int) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, answer ids) of the self-test that fit a session of `room` tokens."""
    prompts, answers = model.metadata.get(PROMPTS_KEY, ()), model.metadata.get(IDS_KEY, ())
    pairs = [
        (model.tokenize(str(prompt).encode("utf-8"), True), [int(i) for i in json.loads(str(ids))])
        for prompt, ids in zip(prompts, answers, strict=False)
    ]
    return [(ids, answer) for ids, answer in pairs if ids and answer and len(ids + answer) <= room]


def _nll(session: Any, vectors: Sequence[tuple[list[int], list[int]]]) -> float:
    """Nats per answer token, over all vectors."""
    total, count = 0.0, 0
    for ids, answer in vectors:
        session.truncate(0)
        log_p = log_softmax(session.eval_all(ids + answer))
        total -= float(log_p[np.arange(len(ids) - 1, len(ids) + len(answer) - 1), answer].sum())
        count += len(answer)
    return total / count
