"""Reference distributions of a deployed file: requests and answers as held-out data had them.

A server measures the same features of what it is asked and answers, and compares (serving/drift.py)
without any service outside the file. Requests are cut from held-out documents at places drawn by
seed: plain beginnings ("text.…"), and holes ("hole.…") where the model has the tokens for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.data.counter import uniform
from gristmill.data.fim import FimTokens

PROMPT_TOKENS, ANSWER_TOKENS = 128, 32  # looked at: the last of a prompt, the first of an answer
TEMPERATURE = 0.8
SUFFIX_TOKENS = 64  # of a hole
Floats = npt.NDArray[np.float64]
Request = tuple[str, list[int]]  # kind, prompt


def requests(
    documents: Sequence[Sequence[int]], fim: FimTokens | None, count: int, seed: int
) -> list[Request]:
    """`count` requests of each kind, as an editor would cut them out of documents of token ids."""
    found: list[Request] = []
    if not documents:
        return found
    for number in range(count):
        document = [int(i) for i in documents[number % len(documents)]]
        share = float(uniform(seed, number)[0])
        cut = max(1, round(share * len(document)))
        found.append(("text", document[:cut]))
        if fim is not None:
            skipped = cut + 1 + int(uniform(seed, number, 1)[0] * ANSWER_TOKENS)
            suffix = document[skipped : skipped + SUFFIX_TOKENS]
            found.append(("hole", fim.prompt(document[:cut][-PROMPT_TOKENS:], suffix)))
    return found


def kind_of(prompt: Sequence[int], fim: FimTokens | None) -> str:
    """ "hole" for a prompt with the tokens of one, else "text"."""
    return "hole" if fim is not None and fim.middle in prompt else "text"


def measure(
    model: Any, asked: Sequence[Request], answers: int, seed: int, documents: int
) -> dict[str, dict[str, Any]]:
    """Distributions over requests: {kind.feature: {n, documents, mean, std, sample}}.

    model: a `_C.Model` with a tokenizer. The first `answers` requests are also answered by
    ANSWER_TOKENS tokens drawn at TEMPERATURE. See Meter for the features. documents: from how many
    the requests were cut.
    """
    from gristmill import _C

    meter = Meter(model, _C.Session(model, window(model.n_ctx)))
    features: dict[str, list[float]] = {}
    for number, (kind, prompt) in enumerate(asked):
        answer = meter.answer(prompt, seed + number) if number < answers else []
        for name, value in meter.features(prompt, answer).items():
            features.setdefault(f"{kind}.{name}", []).append(value)
    return {name: summary(values, documents) for name, values in sorted(features.items())}


def window(n_ctx: int) -> int:
    """Context that a Meter's session needs of a model with n_ctx."""
    return min(n_ctx, PROMPT_TOKENS + ANSWER_TOKENS)


class Meter:
    """Measures a prompt and its answer with a session of its own, of `window` tokens."""

    def __init__(self, model: Any, session: Any) -> None:
        self.model, self.session = model, session
        self.room = window(model.n_ctx)
        raw = ((i, model.token_bytes(i)) for i in range(model.vocab_size))
        # ids that stand for one byte outside ASCII: the tokenizer's fallback for rare characters
        self.single = {i for i, b in raw if len(b) == 1 and b[0] >= 128}

    def _tail(self, prompt: Sequence[int], answer: Sequence[int]) -> tuple[list[int], list[int]]:
        answer = [int(i) for i in answer[: min(ANSWER_TOKENS, self.room - 1)]]
        return [int(i) for i in prompt][-min(PROMPT_TOKENS, self.room - len(answer)) :], answer

    def features(self, prompt: Sequence[int], answer: Sequence[int]) -> dict[str, float]:
        """Of a prompt: tokens, shares of distinct, fallback and non-ASCII ones, nats and entropy a
        token; of an answer: entropy and log-likelihood a token in nats, share of repeated 4-grams.

        What a single token cannot have is left out.
        """
        ids, ahead = self._tail(prompt, answer)
        if not ids:
            return {}
        self.session.truncate(0)
        log_p = log_softmax(self.session.eval_all(ids + ahead))
        text = b"".join(self.model.token_bytes(i) for i in ids)
        found = {
            "prompt_tokens": float(len(prompt)),
            "prompt_unique_share": len(set(ids)) / len(ids),
            "prompt_fallback_share": sum(i in self.single for i in ids) / len(ids),
            "prompt_non_ascii_share": sum(b >= 128 for b in text) / max(len(text), 1),
        }
        entropy = -(np.exp(log_p) * log_p).sum(-1)
        if len(ids) > 1:
            found["prompt_nll"] = float(-log_p[np.arange(len(ids) - 1), ids[1:]].mean())
            found["prompt_entropy"] = float(entropy[: len(ids)].mean())
        if ahead:
            before = np.arange(len(ids) - 1, len(ids) + len(ahead) - 1)
            grams = Counter(zip(ahead, ahead[1:], ahead[2:], ahead[3:], strict=False))
            found["answer_entropy"] = float(entropy[before].mean())
            found["answer_logprob"] = float(log_p[before, ahead].mean())
            if grams:
                found["answer_repeated_4grams"] = 1.0 - len(grams) / grams.total()
        return found

    def answer(self, prompt: Sequence[int], seed: int) -> list[int]:
        """Up to ANSWER_TOKENS ids drawn at TEMPERATURE, without the one that ends the text."""
        from gristmill import _C

        ids, _ = self._tail(prompt, [0] * ANSWER_TOKENS)
        self.session.truncate(0)
        logits = self.session.eval(ids)
        drawn: list[int] = []
        while len(ids) + len(drawn) < self.room and len(drawn) < ANSWER_TOKENS:
            at = self.session.length
            id = int(_C.sample(logits, TEMPERATURE, 0, 1.0, 0.0, seed, at))
            if id == self.model.eos_id:
                break
            drawn.append(id)
            logits = self.session.eval([id])
        return drawn


def log_softmax(logits: npt.NDArray[np.float32]) -> Floats:
    """Log-probabilities (..., V) in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    normalised: Floats = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return normalised


def summary(values: Sequence[float], documents: int) -> dict[str, Any]:
    """A sample in order, with its size, the texts it is of, mean and standard deviation."""
    sample = np.sort(np.asarray(values, np.float64))
    return {
        "n": len(sample),
        "documents": min(documents, len(sample)),
        "mean": round(float(sample.mean()), 6),
        "std": round(float(sample.std()), 6),
        "sample": [round(float(x), 6) for x in sample],
    }
