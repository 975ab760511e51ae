"""What generation needs of a model, as protocols: tests can stand in for the C++ runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]

# (logits (V,), temperature, top_k, top_p, min_p, seed, position) -> token id
Sampler = Callable[[Logits, float, int, float, float, int, int], int]


class ModelLike(Protocol):
    """Tokenizer, metadata and identity of a loaded model."""

    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def n_ctx(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    def tokenize(self, text: bytes, special: bool) -> list[int]: ...
    def token_bytes(self, id: int) -> bytes: ...


class SessionLike(Protocol):
    """One key-value cache: ids already evaluated, in order."""

    @property
    def length(self) -> int: ...
    def eval(self, ids: list[int]) -> Logits: ...  # (V,) of the last id
    def eval_all(self, ids: list[int]) -> Logits: ...  # (n, V)
    def truncate(self, n: int) -> None: ...


def eval_in_turns(sessions: Sequence[SessionLike], ids: Sequence[list[int]]) -> Logits:
    """Append ids[i] to sessions[i], one after the other; logits (n, V) of the last id of each."""
    return np.stack([session.eval(own) for session, own in zip(sessions, ids, strict=True)])


@dataclass(frozen=True)
class Runtime:
    """A loaded model with the functions that make it generate."""

    model: ModelLike
    new_session: Callable[[int], SessionLike]  # n_ctx -> empty session
    sample: Sampler
    eval_batch: Callable[[list[Any], list[list[int]]], Logits] = eval_in_turns


@dataclass(frozen=True, slots=True)
class Feed:
    """Ids to append to a session; wanted are the logits (V,) of the last or (n, V) of `every`."""

    ids: list[int]
    every: bool = False


@dataclass
class Slot:
    """A session and the ids it holds, so that a later prompt can reuse their common beginning."""

    session: SessionLike
    ids: list[int]

    def reuse(self, prompt: Sequence[int], limit: int) -> int:
        """Cut the cache to its common beginning with `prompt`, at most `limit` ids; returns it."""
        kept = min(common_prefix(self.ids, prompt), limit)
        if kept < len(self.ids):
            self.session.truncate(kept)
            del self.ids[kept:]
        return kept

    def feed(self, feed: Feed) -> Logits:
        """Append ids to the session; returns the logits that are wanted."""
        logits = self.session.eval_all(feed.ids) if feed.every else self.session.eval(feed.ids)
        self.ids.extend(feed.ids)
        return logits


def feed_together(
    runtime: Runtime, slots: Sequence[Slot], feeds: Sequence[Feed]
) -> list[Logits | Exception]:
    """Append feeds[i] to slots[i] in one step of the model; logits of each, or why it failed.

    The bits are those of `Slot.feed` alone. One that fails takes no other with it.
    """
    results: list[Logits | Exception] = [Exception()] * len(slots)
    together = [i for i, feed in enumerate(feeds) if not feed.every]
    alone = [i for i, feed in enumerate(feeds) if feed.every]
    failed = False
    if len(together) > 1:
        try:
            sessions = [slots[i].session for i in together]
            rows = runtime.eval_batch(sessions, [feeds[i].ids for i in together])
            for i, row in list(zip(together, rows, strict=True)):
                slots[i].ids.extend(feeds[i].ids)
                results[i] = row
            together = []
        except Exception:
            failed = True  # one by one, whose it is will show
    for i in [*together, *alone]:
        try:
            if failed:
                slots[i].session.truncate(len(slots[i].ids))
            results[i] = slots[i].feed(feeds[i])
        except Exception as error:  # a bad request must not take the others with it
            results[i] = error
    return results


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of equal ids at the beginning of both."""
    n = min(len(a), len(b))
    for i in range(n):
        if a[i] != b[i]:
            return i
    return n
