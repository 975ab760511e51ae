"""Reference distributions of a deployed file: requests and answers as held-out data had them.

A server compares what it sees with these (population stability index over the ten equally filled
bins given by `edges`), without any service outside the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

PROMPT_TOKENS, ANSWER_TOKENS = 128, 32
TEMPERATURE = 0.8
Floats = npt.NDArray[np.float64]


def measure(
    model: Any, documents: Iterable[Sequence[int]], answers: int, seed: int
) -> dict[str, Any]:
    """Distributions over documents of token ids: {feature: {n, mean, std, edges}}.

    model: a `_C.Model` with a tokenizer. The first `answers` documents are also continued by
    ANSWER_TOKENS tokens drawn at TEMPERATURE. Entropy and log-likelihood are in nats a token.
    """
    from gristmill import _C

    single = _byte_tokens(model)
    session = _C.Session(model, min(model.n_ctx, PROMPT_TOKENS + ANSWER_TOKENS))
    features: dict[str, list[float]] = {}
    for number, document in enumerate(documents):
        ids = [int(i) for i in document][: min(PROMPT_TOKENS, session.n_ctx - 1)]
        if len(ids) < 2:
            continue
        session.truncate(0)
        logits = session.eval_all(ids)
        found = _prompt_features(model, document, ids, logits, single)
        if number < answers:
            found |= _answer_features(_C, session, logits[-1], seed + number)
        for name, value in found.items():
            features.setdefault(name, []).append(value)
    return {name: _summary(values) for name, values in sorted(features.items())}


def log_softmax(logits: npt.NDArray[np.float32]) -> Floats:
    """Log-probabilities (..., V) in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    normalised: Floats = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return normalised


def _byte_tokens(model: Any) -> set[int]:
    """Ids that stand for one byte outside ASCII: the tokenizer's fallback for rare characters."""
    raw = ((i, model.token_bytes(i)) for i in range(model.vocab_size))
    return {i for i, b in raw if len(b) == 1 and b[0] >= 128}


def _entropy(log_p: Floats) -> Floats:
    entropy: Floats = -(np.exp(log_p) * log_p).sum(-1)
    return entropy


def _prompt_features(
    model: Any,
    document: Sequence[int],
    ids: list[int],
    logits: npt.NDArray[np.float32],
    single: set[int],
) -> dict[str, float]:
    log_p = log_softmax(logits)
    text = model.detokenize(ids)
    return {
        "prompt_tokens": float(len(document)),
        "prompt_unique_share": len(set(ids)) / len(ids),
        "prompt_fallback_share": sum(i in single for i in ids) / len(ids),
        "prompt_non_ascii_share": sum(b >= 128 for b in text) / max(len(text), 1),
        "prompt_nll": float(-log_p[np.arange(len(ids) - 1), ids[1:]].mean()),
        "prompt_entropy": float(_entropy(log_p).mean()),
    }


def _answer_features(
    _C: Any, session: Any, logits: npt.NDArray[np.float32], seed: int
) -> dict[str, float]:
    ids: list[int] = []
    entropies, log_likelihoods = [], []
    for _ in range(min(ANSWER_TOKENS, session.n_ctx - session.length)):
        log_p = log_softmax(logits)
        id = _C.sample(logits, TEMPERATURE, 0, 1.0, 0.0, seed, session.length)
        entropies.append(float(_entropy(log_p)))
        log_likelihoods.append(float(log_p[id]))
        ids.append(id)
        logits = session.eval([id])
    grams = Counter(zip(ids, ids[1:], ids[2:], ids[3:], strict=False))
    return {
        "answer_entropy": float(np.mean(entropies)),
        "answer_logprob": float(np.mean(log_likelihoods)),
        "answer_repeated_4grams": 1.0 - len(grams) / max(grams.total(), 1),
    }


def _summary(values: list[float]) -> dict[str, Any]:
    sample = np.array(values)
    edges = np.quantile(sample, np.linspace(0, 1, 11))
    return {
        "n": len(values),
        "mean": round(float(sample.mean()), 6),
        "std": round(float(sample.std()), 6),
        "edges": [round(float(e), 6) for e in edges],
    }
