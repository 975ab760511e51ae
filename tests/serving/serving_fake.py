"""A stand-in for the C++ model and session: same interface, arithmetic instead of weights.

The tokenizer is all bytes, a few longer words and five special tokens. Logits are a hash of the
last four ids, so they depend on the context and on nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gristmill.serving.decode import Event, Finish, Piece
from gristmill.serving.engine import Failure
from gristmill.serving.runtime import Logits, Runtime

WORDS = (b"def ", b"return ", b"\n    ", b" = ", "é".encode(), "语".encode(), "😀".encode())
SPECIALS = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>")
FIRST_SPECIAL = 256 + len(WORDS)
VOCAB = FIRST_SPECIAL + len(SPECIALS)
MASK = np.uint64((1 << 64) - 1)


def mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Sink:
    """What one request gets from the engine."""

    def __init__(self) -> None:
        self.events: list[Event | Failure] = []
        self.done = threading.Event()

    def __call__(self, event: Event | Failure) -> None:
        """Take an event."""
        self.events.append(event)
        if isinstance(event, Finish | Failure):
            self.done.set()

    @property
    def ids(self) -> list[int]:
        """Those that were generated."""
        return [i for event in self.events if isinstance(event, Piece) for i in event.ids]


class FakeModel:
    """Tokenizer and metadata."""

    def __init__(self, n_ctx: int = 256, *, fim: bool = True, **metadata: object) -> None:
        self.n_ctx, self.vocab_size, self.digest = n_ctx, VOCAB, "f00dfacecafebeef" * 4
        self.bos_id, self.eos_id = -1, FIRST_SPECIAL
        self.architecture = "llama"
        self.metadata = {"general.name": "fake", "tokenizer.ggml.model": "gpt2", **metadata}
        if fim:
            for offset, part in enumerate(("pre", "mid", "suf", "pad")):
                self.metadata[f"tokenizer.ggml.fim_{part}_token_id"] = FIRST_SPECIAL + 1 + offset
        self._words = [bytes([i]) for i in range(256)] + list(WORDS)

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        """Longest known word first, else bytes."""
        names = {name.encode(): FIRST_SPECIAL + i for i, name in enumerate(SPECIALS)}
        known = {word: 256 + i for i, word in enumerate(WORDS)} | (names if special else {})
        ordered = sorted(known, key=len, reverse=True)
        ids, at = [], 0
        while at < len(text):
            word = next((w for w in ordered if text.startswith(w, at)), text[at : at + 1])
            ids.append(known.get(word, word[0]))
            at += len(word)
        return ids

    def token_bytes(self, id: int) -> bytes:
        """Bytes of one token; a special token is its name."""
        if id >= FIRST_SPECIAL:
            return SPECIALS[id - FIRST_SPECIAL].encode()
        return self._words[id]

    def selftest(self) -> int:
        """The stand-in carries no self-test."""
        return 0

    def detokenize(self, ids: Sequence[int]) -> bytes:
        """Bytes of all tokens."""
        return b"".join(self.token_bytes(i) for i in ids)


class FakeSession:
    """Cache of ids; `seconds` is slept per id to make requests last.

    With `say`, the id after n ids is byte (n - 1) of it, again and again, whatever the ids are.
    """

    def __init__(
        self, n_ctx: int, seconds: float = 0.0, eos: float = -1.0, say: bytes = b""
    ) -> None:
        self._n_ctx, self._seconds, self._eos, self._say = n_ctx, seconds, eos, say
        self.ids: list[int] = []
        self.evaluated = 0

    @property
    def length(self) -> int:
        """Ids in the cache."""
        return len(self.ids)

    def eval(self, ids: list[int]) -> Logits:
        """Logits after the last id."""
        return self.eval_all(ids)[-1]

    def eval_all(self, ids: list[int]) -> Logits:
        """Logits after each id."""
        if not ids or len(self.ids) + len(ids) > self._n_ctx:
            raise ValueError(f"{len(self.ids)} + {len(ids)} ids, context {self._n_ctx}")
        if self._seconds:
            time.sleep(self._seconds * len(ids))
        rows = []
        for value in ids:
            self.ids.append(value)
            rows.append(self._row())
        self.evaluated += len(ids)
        return np.stack(rows)

    def truncate(self, n: int) -> None:
        """Keep the first n."""
        assert 0 <= n <= len(self.ids)
        del self.ids[n:]

    def _row(self) -> Logits:
        context = 0
        for value in self.ids[-4:]:
            context = (context * 1000003 + value + 1) & int(MASK)
        state = np.arange(VOCAB, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        unit = mixed(state + np.uint64(context)) >> np.uint64(40)
        row = unit.astype(np.float32) / np.float32(1 << 24) * np.float32(8)
        row[128:256] -= 3  # mostly readable text
        row[FIRST_SPECIAL] += np.float32(self._eos)
        row[FIRST_SPECIAL + 1 :] = -1e4
        if self._say:
            row[self._say[(len(self.ids) - 1) % len(self._say)]] = 100
        return row


def fake_sample(
    logits: Logits,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    position: int,
) -> int:
    """Gumbel-max with noise that is a function of (seed, position, id)."""
    assert (logits.dtype, logits.shape) == (np.float32, (VOCAB,))
    if temperature == 0:
        return int(np.argmax(logits))
    kept = logits.astype(np.float64)
    if top_k:
        kept[kept < np.sort(kept)[-min(top_k, kept.size)]] = -np.inf
    state = np.arange(VOCAB, dtype=np.uint64) + np.uint64((seed << 32) & int(MASK))
    noise = mixed(mixed(state) + np.uint64(position)) >> np.uint64(11)
    uniform = (noise.astype(np.float64) + 0.5) / (1 << 53)
    return int(np.argmax(kept / temperature - np.log(-np.log(uniform))))


def fake_runtime(
    n_ctx: int = 256,
    *,
    seconds: float = 0.0,
    eos: float = -1.0,
    fim: bool = True,
    say: bytes = b"",
    **metadata: object,
) -> Runtime:
    """A runtime of the stand-ins."""
    model = FakeModel(n_ctx, fim=fim, **metadata)
    return Runtime(model, lambda size: FakeSession(size, seconds, eos, say), fake_sample)
