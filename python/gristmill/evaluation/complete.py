"""Completes holes greedily and measures it: a model, or anything else that yields bytes.

The model gets the prompt the server would give it (serving/fim.py), cut to its context with
`max_tokens` left free. It runs in the runtime's session with its key-value cache.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gristmill.data.document import is_python
from gristmill.data.fim import FimTokens
from gristmill.data.holes import Hole
from gristmill.evaluation.endings import ending
from gristmill.evaluation.similarity import edit_similarity, exact, keystrokes
from gristmill.serving.fim import infill_ids

if TYPE_CHECKING:
    from gristmill.data.tokenizer import Tokenizer
    from gristmill.models.causal import CausalLM

CHARACTERS = 8  # of a text per id of the context, before it is known how many ids it gives


class Completer(Protocol):
    """Whatever writes into a hole: the bytes of one id after another, until it wants to stop."""

    def pieces(self, prefix: str, suffix: str, /) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class Completion:
    """What was written into a hole, and how that compares with what stood there."""

    hole: Hole
    text: str
    truth: str
    exact: bool
    similarity: float  # 1 - edit distance / longer length
    keystrokes: int  # keys pressed with this offer; without it len(truth)
    parses: bool | None  # the file with the completion in it; None where it is no Python


class ModelCompleter:
    """A live model in the runtime's session, greedy."""

    def __init__(
        self, model: CausalLM, tokenizer: Tokenizer, max_tokens: int, suffix_first: bool = False
    ) -> None:
        """Share the weights of `model` without copy; the session is reused from hole to hole."""
        from gristmill import _C

        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.n_ctx = model.config.max_position_embeddings
        live = _C.Model.from_tensors(model.config.to_dict(), dict(model.tensors()))
        self.session = _C.Session(live, self.n_ctx)
        self.prompts = Prompts(tokenizer, self.n_ctx, max_tokens, suffix_first)
        self.ends = frozenset(tokenizer.special.values())

    def pieces(self, prefix: str, suffix: str) -> Iterator[bytes]:
        """Yield the bytes of the likeliest id, again and again; ends at any special id."""
        for chosen in self.after(self.prompts(prefix, suffix)):
            if chosen in self.ends:
                return
            yield self.tokenizer.token_bytes(chosen)

    def after(self, ids: Sequence[int]) -> Iterator[int]:
        """Yield the likeliest id after `ids`, again and again, until the context is full."""
        prompt = list(ids)[: self.n_ctx]
        self.session.truncate(0)
        logits = self.session.eval(prompt)
        for left in range(self.n_ctx - len(prompt), -1, -1):
            chosen = int(np.argmax(logits))
            yield chosen
            if left:
                logits = self.session.eval([chosen])


class Prompts:
    """The server's fill-in-the-middle prompt, from the tokenizer alone."""

    bos_id = -1  # our models have no begin-of-text id

    def __init__(
        self, tokenizer: Tokenizer, n_ctx: int, max_tokens: int, suffix_first: bool = False
    ) -> None:
        self.tokenizer, self.n_ctx, self.max_tokens = tokenizer, n_ctx, max_tokens
        self.metadata: Mapping[str, Any] = {}
        self.vocab_size, self.eos_id, self.digest = tokenizer.vocab_size, tokenizer.eos, ""
        self.tokens = FimTokens.of(tokenizer.special, suffix_first)

    def __call__(self, prefix: str, suffix: str) -> list[int]:
        """Return the prompt's ids. Only as much text is encoded as can matter."""
        before, after = self._near(prefix, last=True), self._near(suffix, last=False)
        sizes = {"n_ctx": self.n_ctx, "n_predict": self.max_tokens}
        return infill_ids(self, self.tokens, before, after, "", [], **sizes).ids

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        """Return the ids of UTF-8 text; its special tokens stay plain text."""
        del special
        return self.tokenizer.encode(text.decode("utf-8"))

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of an id."""
        return self.tokenizer.token_bytes(id)

    def _near(self, text: str, *, last: bool) -> str:
        """Return the end (or beginning) of `text` that gives the same n_ctx ids as all of it.

        It is cut before a single space between two other characters, where GPT-2's pieces always
        part, so that the ids on one side do not depend on the text on the other.
        """
        size = CHARACTERS * self.n_ctx
        while size < len(text):
            at = _parting(text, len(text) - size if last else size, -1 if last else 1)
            if at is None:
                break
            near = text[at:] if last else text[:at]
            if len(self.tokenizer.encode(near)) >= self.n_ctx:
                return near
            size *= 2
        return text


def _parting(text: str, at: int, step: int) -> int | None:
    """Return the next place from `at` on, in direction `step`, where encoding always parts."""
    while 0 < at < len(text) - 1:
        if text[at] == " " and not text[at - 1].isspace() and not text[at + 1].isspace():
            return at
        at += step
    return None


def complete(
    completer: Completer,
    holes: Sequence[Hole],
    texts: Mapping[str, str],
    *,
    max_tokens: int,
    parse: bool = True,
    progress: Callable[[float], None] | None = None,
) -> list[Completion]:
    """Fill every hole of the documents `texts` (by id) with at most `max_tokens` ids; in order."""
    done = []
    for number, hole in enumerate(holes, 1):
        text = texts[hole.doc_id]
        prefix, truth, suffix = text[: hole.start], text[hole.start : hole.end], text[hole.end :]
        written = fill(completer, hole.kind, prefix, suffix, max_tokens)
        same = exact(truth, written)
        done.append(
            Completion(
                hole,
                written,
                truth,
                same,
                edit_similarity(truth, written),
                keystrokes(truth, written),
                parses(prefix + written + suffix) if parse and is_python(hole.path) else None,
            )
        )
        if progress is not None:
            progress(number / len(holes))
    return done


def fill(completer: Completer, kind: str, prefix: str, suffix: str, max_tokens: int) -> str:
    """Return what is written into one hole, cut where its kind ends (evaluation/endings.py)."""
    data = b""
    for piece in islice(completer.pieces(prefix, suffix), max_tokens):
        data += piece
        text = data.decode("utf-8", "ignore")
        end = ending(kind, prefix, text)
        if end is not None:
            return text[:end]
    return data.decode("utf-8", "ignore")


def parses(text: str) -> bool:
    """Return whether `text` is Python to the running interpreter."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
