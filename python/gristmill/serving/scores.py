"""Log-probabilities of tokens and the adjustments a request may ask for, on one row of logits."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .runtime import Logits
from .text import token_name

LOWEST = -9999.0  # stands for log 0, which JSON cannot say

Row = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """A token with its log-probability (nats, before temperature) and the likeliest others."""

    id: int
    token: str
    offset: int  # characters of text before it
    logprob: float | None  # None for the first token of an echoed prompt: nothing predicts it
    top: tuple[tuple[str, float, int], ...]  # name, log-probability, id; each name once
    ends: bool = False  # it ended the answer and is no text of it


def largest(row: Row, k: int) -> list[int]:
    """Ids of the k largest entries of row (V,), largest first, lowest id first among equals."""
    k = min(k, row.size)
    if k == 0:
        return []
    bar = np.partition(row, row.size - k)[row.size - k]
    ids = np.flatnonzero(row >= bar)
    order = np.lexsort((ids, -row[ids]))
    return [int(i) for i in ids[order][:k]]


def adjusted(
    logits: Logits,
    bias: Mapping[int, float],
    presence: float,
    frequency: float,
    counts: Mapping[int, int],
) -> Logits:
    """A copy of logits (V,) with bias added and OpenAI's penalties for tokens already generated.

    logit[i] += bias[i] - frequency * count[i] - presence * (count[i] > 0)
    """
    result = logits.copy()
    for token, amount in bias.items():
        result[token] += np.float32(amount)
    for token, count in counts.items():
        result[token] -= np.float32(frequency * count + presence)
    return result


class Scorer:
    """Scores tokens in the order of the text, counting the characters before each."""

    def __init__(self, token_bytes: Callable[[int], bytes], alternatives: int) -> None:
        self._token_bytes, self._alternatives = token_bytes, alternatives
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._characters = 0

    def __call__(self, token: int, row: Row | None, ends: bool = False) -> Score:
        """Score of `token`, predicted by log-probabilities `row` (V,); None: not predicted."""
        data = self._token_bytes(token)
        offset = self._characters
        self._characters += len(self._decoder.decode(data))
        if row is None:
            return Score(token, token_name(data), offset, None, ())
        top: dict[str, tuple[str, float, int]] = {}
        for other in largest(row, self._alternatives):
            name = token_name(self._token_bytes(other))
            top.setdefault(name, (name, self._finite(row[other]), other))
        logprob = self._finite(row[token])
        return Score(token, token_name(data), offset, logprob, tuple(top.values()), ends)

    @staticmethod
    def _finite(value: float) -> float:
        return max(float(value), LOWEST)
