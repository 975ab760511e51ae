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


@dataclass(frozen=True)
class Runtime:
    """A loaded model with the two functions that make it generate."""

    model: ModelLike
    new_session: Callable[[int], SessionLike]  # n_ctx -> empty session
    sample: Sampler


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

    def eval(self, ids: list[int]) -> Logits:
        """Append `ids`; returns logits (V,) of the last one."""
        logits = self.session.eval(ids)
        self.ids.extend(ids)
        return logits

    def eval_all(self, ids: list[int]) -> Logits:
        """Append `ids`; returns logits (n, V) of every one."""
        logits = self.session.eval_all(ids)
        self.ids.extend(ids)
        return logits


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of equal ids at the beginning of both."""
    n = min(len(a), len(b))
    for i in range(n):
        if a[i] != b[i]:
            return i
    return n
