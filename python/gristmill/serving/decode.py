"""The token loop: one request as a generator of events and of ids to feed to the model.

A generator, because the caller then decides what happens between two steps: `decode` evaluates one
request at once, the server's engine feeds several in one step and closes one to cancel it.
Sampling is a pure function of (seed, position): the same request gives the same bytes whatever
else is running and however much of the prompt was still in the cache.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gristmill.checkpoint.reference import log_softmax

from .fim import control_ids
from .infill_sampler import infill_logits
from .runtime import Feed, Logits, Runtime, Slot
from .scores import Row, Score, Scorer, adjusted
from .text import TextStream

PREFILL = 128  # prompt ids per step: bounds how long one prompt keeps the others waiting

StopType = Literal["eos", "word", "limit"]


@dataclass(frozen=True)
class Task:
    """One sequence to generate. `max_tokens` 0 evaluates the prompt only."""

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()  # end it as the end of text does
    logprobs: int | None = None  # alternatives per token; None: no scores
    echo: bool = False  # score the prompt too
    ignore_eos: bool = False
    indent: int = 0  # stop at a new line indented by fewer columns; 0: off
    infill: bool = False  # llama.cpp's sampler of that name, after top_k and top_p
    predict_seconds: float = 0.0  # stop once this old and past a line break; 0: off
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class Prefilled:
    """`done` of `total` prompt ids are in the cache."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is certain, the ids sampled for it and the scores of the tokens in it."""

    text: str
    ids: tuple[int, ...]
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """Why it ended, and the counts and seconds of both phases."""

    stop_type: StopType
    stop_word: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prompt_seconds: float
    predict_seconds: float

    @property
    def reason(self) -> Literal["stop", "length"]:
        """OpenAI's finish_reason."""
        return "length" if self.stop_type == "limit" else "stop"


Event = Prefilled | Piece | Finish
Steps = Generator[Event | Feed, Logits | None, None]  # a Feed is answered by its logits


def decode(runtime: Runtime, slot: Slot, task: Task) -> Iterator[Event]:
    """Evaluate the prompt, then sample one token per step until something ends it.

    The prompt must not be empty, nor prompt + max_tokens exceed the session's context: the caller
    checks both, with the message its interface asks for.
    """
    steps = steps_of(runtime, slot, task)
    logits: Logits | None = None
    while True:
        try:
            item = steps.send(logits)
        except StopIteration:
            return
        logits = slot.feed(item) if isinstance(item, Feed) else None
        if not isinstance(item, Feed):
            yield item


def steps_of(runtime: Runtime, slot: Slot, task: Task) -> Steps:
    """`decode` with its model calls left to the caller, who appends every Feed to the slot."""
    return _Decoder(runtime, slot, task).run()


class _Decoder:
    def __init__(self, runtime: Runtime, slot: Slot, task: Task) -> None:
        self.runtime, self.slot, self.task = runtime, slot, task
        self.stream = TextStream(task.stop)
        self.line = _Lines(task.indent)
        self.ends = frozenset[int]() if task.ignore_eos else control_ids(runtime.model)
        self.ends |= task.stop_ids
        self.score = Scorer(runtime.model.token_bytes, task.logprobs or 0)
        self.waiting: deque[tuple[int, Score]] = deque()  # (first byte, score) still held back
        self.pushed = 0  # bytes of sampled tokens
        self.sampled: dict[int, int] = {}  # how often each id was
        self.stop_type: StopType = "limit"

    def run(self) -> Steps:
        began = time.perf_counter()
        keep = 0 if self._echoes else len(self.task.prompt) - 1  # the last id's logits are needed
        cached = self.slot.reuse(self.task.prompt, keep)
        logits = yield from self._prefill(cached)
        first = time.perf_counter()
        yield from self._predict(logits, first)
        tail = self.stream.finish()
        scores = self._released(last=True)
        if tail or scores:
            yield Piece(tail, (), scores)
        yield Finish(
            self.stop_type,
            self.stream.stop_word or "",
            len(self.task.prompt),
            cached,
            sum(self.sampled.values()),
            first - began,
            time.perf_counter() - first,
        )

    @property
    def _echoes(self) -> bool:
        return self.task.echo and self.task.logprobs is not None

    def _prefill(self, cached: int) -> Generator[Event | Feed, Logits | None, Logits]:
        prompt = self.task.prompt
        before: Row | None = None
        logits: Logits | None = None
        for start in range(cached, len(prompt), PREFILL):
            chunk = list(prompt[start : start + PREFILL])
            logits = yield Feed(chunk, every=self._echoes)
            assert logits is not None
            if self._echoes:
                rows = logits
                table = log_softmax(rows)
                scores = [self.score(chunk[0], before)]
                scores += [self.score(id, table[i]) for i, id in enumerate(chunk[1:])]
                before, logits = table[-1], rows[-1]
                yield Piece("", (), tuple(scores))
            yield Prefilled(start + len(chunk), len(prompt))
        assert logits is not None  # at least the last id is never taken from the cache
        return logits

    def _predict(self, logits: Logits, began: float) -> Steps:
        for left in range(self.task.max_tokens, 0, -1):
            chosen = self._sample(logits)
            if chosen in self.ends:
                self.stop_type = "eos"
                if self.task.logprobs is not None:  # it has a probability though it has no text
                    score = self.score(chosen, log_softmax(logits), ends=True)
                    self.waiting.append((self.pushed, score))
                return
            yield self._push(chosen, logits)
            if self.stream.stop_word is not None:
                self.stop_type = "word"
                return
            limit = self.task.predict_seconds
            late = self.line.broken and 0 < limit < time.perf_counter() - began
            if self.line.ended or late:
                return
            if left > 1:
                fed = yield Feed([chosen])
                assert fed is not None
                logits = fed

    def _sample(self, logits: Logits) -> int:
        task = self.task
        if task.logit_bias or task.presence_penalty or task.frequency_penalty:
            penalties = (task.presence_penalty, task.frequency_penalty)
            logits = adjusted(logits, task.logit_bias, *penalties, self.sampled)
        # a nucleus of nothing still holds the likeliest token; the sampler takes float32
        top_k, top_p = (task.top_k, task.top_p) if np.float32(task.top_p) > 0 else (1, 1.0)
        if task.infill:
            token_bytes = self.runtime.model.token_bytes
            logits = infill_logits(logits, top_k, top_p, self.ends, token_bytes)
            top_k, top_p = 0, 1.0
        options = (task.temperature, top_k, top_p, task.min_p)
        chosen = self.runtime.sample(logits, *options, task.seed, len(self.slot.ids))
        self.sampled[chosen] = self.sampled.get(chosen, 0) + 1
        return chosen

    def _push(self, chosen: int, logits: Logits) -> Piece:
        data = self.runtime.model.token_bytes(chosen)
        if self.task.logprobs is not None:
            score = self.score(chosen, log_softmax(logits))
            self.waiting.append((self.pushed, score))
        self.pushed += len(data)
        text = self.stream.push(self.line.cut(data))
        return Piece(text, (chosen,), self._released(last=False))

    def _released(self, *, last: bool) -> tuple[Score, ...]:
        """Scores of the tokens whose first byte is out; those inside a stop string never are."""
        ready = []
        whole = last and self.stream.stop_word is None and not self.line.ended
        while self.waiting and (whole or self.waiting[0][0] < self.stream.emitted):
            ready.append(self.waiting.popleft()[1])
        return tuple(ready)


class _Lines:
    """Watches the answer's lines for the two ends editors ask for (llama.cpp's n_indent)."""

    def __init__(self, indent: int) -> None:
        self._indent, self._column, self._leading = indent, 0, False
        self.broken = False  # a line break was generated
        self.ended = False  # a later line was indented by too little

    def cut(self, data: bytes) -> bytes:
        """`data` up to the first character of a line that is indented by too little."""
        for i, byte in enumerate(data):
            if self._leading and byte not in b" \t":
                if self._column < self._indent:
                    self.ended = True
                    return data[:i]
                self._leading = False
            self._column += 1
            if byte == 0x0A:
                self.broken = self._leading = True
                self._column = 0
        return data
