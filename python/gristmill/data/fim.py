"""Fill-in-the-middle: a text is reordered as prefix, suffix, middle, so that models learn it.

Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle"
(arXiv:2207.14255), with Qwen's tokens. PSM: `<prefix> P <suffix> S <middle> M <eos>`; SPM:
`<prefix> <suffix> S <middle> P M <eos>`. Cuts are at characters, not tokens, because a cursor
stands anywhere; prefix, middle and suffix are then encoded each on its own, as they are in use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gristmill.data.counter import uniform

PREFIX, MIDDLE, SUFFIX = "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"
EOS, PAD = "<|endoftext|>", "<|fim_pad|>"
SENTINELS = 4  # prefix, suffix, middle, eos: ids a permuted text has more
SMALLEST = 16  # ids; a shorter text stays as it is
SLACK = 4  # ids that cutting inside tokens may add (measured: more in 4 % of the cuts)
_STOPS = ",)]};:\n"  # where an argument, an index or a condition ends
_HOLE, _SHAPE = 0, np.arange(1, 5)  # keys of a text's draws: has it one; order, kind, two places


@dataclass(frozen=True)
class FimTokens:
    """Sentinel ids of a model, and whether the suffix comes first (SPM)."""

    prefix: int
    suffix: int
    middle: int
    suffix_first: bool = False

    @classmethod
    def of(cls, special: Mapping[str, int], suffix_first: bool) -> FimTokens:
        """Return those among a tokenizer's special tokens."""
        return cls(special[PREFIX], special[SUFFIX], special[MIDDLE], suffix_first)

    def prompt(self, prefix: Sequence[int], suffix: Sequence[int]) -> list[int]:
        """Return the ids after which the model writes what stands between prefix and suffix."""
        if self.suffix_first:
            return [self.prefix, self.suffix, *suffix, self.middle, *prefix]
        return [self.prefix, *prefix, self.suffix, *suffix, self.middle]


class Codec(Protocol):
    """What of a tokenizer is needed to cut between characters."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ...

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids."""
        ...


def has_hole(seed: int, epoch: int, doc: Any, rate: float) -> npt.NDArray[np.bool_]:
    """Say for each number of a text (any array) whether it gets a hole in this epoch."""
    return uniform(seed, epoch, doc, _HOLE) < rate


def permute(
    ids: Sequence[int], seed: int, epoch: int, doc: int, rate: float, spm_rate: float,
    special: Mapping[str, int], codec: Codec | None = None,
) -> list[int]:  # fmt: skip
    """Return `ids` as a text with a hole, with chance `rate`; else as they are.

    A closing `<|endoftext|>` moves behind the middle; without one it is added there, since a hole
    always ends. Pure function of (seed, epoch, doc). Without a codec, or where the ids begin inside
    a character or cutting would add more than SLACK ids, the cuts are between tokens.
    """
    ids = [int(i) for i in ids]
    eos = special[EOS]
    body = ids[:-1] if ids and ids[-1] == eos else ids
    if len(ids) < SMALLEST or (rate < 1.0 and not has_hole(seed, epoch, doc, rate)[0]):
        return ids
    draws = uniform(seed, epoch, doc, _SHAPE)
    parts = _cut_text(body, codec, draws[1:]) if codec is not None else None
    if parts is None:
        first, second = sorted(int(d * (len(body) + 1)) for d in draws[2:])
        parts = body[:first], body[first:second], body[second:]
    prefix, middle, suffix = parts
    tokens = FimTokens.of(special, suffix_first=bool(draws[0] < spm_rate))
    return [*tokens.prompt(prefix, suffix), *middle, eos]


def _cut_text(
    ids: list[int], codec: Codec, draws: npt.NDArray[np.float64]
) -> tuple[list[int], list[int], list[int]] | None:
    """Return ids of prefix, middle, suffix cut at characters; None where that is not possible."""
    try:
        text = codec.decode_bytes(ids).decode("utf-8")
    except UnicodeDecodeError:  # the first or last token holds a part of a character
        return None
    first, second = cuts(text, *(float(draw) for draw in draws))
    parts = (text[:first], text[first:second], text[second:])
    prefix, middle, suffix = (codec.encode(part) for part in parts)
    if len(prefix) + len(middle) + len(suffix) > len(ids) + SLACK:
        return None
    return prefix, middle, suffix


def cuts(text: str, kind: float, one: float, two: float) -> tuple[int, int]:
    """Return where the middle begins and ends, from three numbers in [0, 1).

    One third each: anywhere (two uniform places, as in the paper); the rest of a line, or of up to
    eight lines, each further one half as likely; from anywhere to the next stop in the line.
    Holes in an editor are of the last two kinds.
    """
    n = len(text)
    start = int(one * (n + 1))
    if kind < 1 / 3:
        other = int(two * (n + 1))
        return min(start, other), max(start, other)
    if kind < 2 / 3:
        if two >= 0.5:  # a whole line: from its first letter
            begin = text.rfind("\n", 0, start) + 1
            line_end = _line_end(text, start)
            start = line_end - len(text[begin:line_end].lstrip())
        further = -math.floor(math.log2(max(2 * two if two < 0.5 else 2 * two - 1, 2.0**-8)))
        return start, _line_end(text, start, further)
    stops = [at for stop in _STOPS if (at := text.find(stop, start + 1)) >= 0]
    return start, min(stops, default=n)


def _line_end(text: str, at: int, lines: int = 1) -> int:
    """Return the end (before the newline) of the `lines`-th line counted from the one at `at`."""
    for left in range(lines, 0, -1):
        end = text.find("\n", at)
        if end < 0:
            return len(text)
        at = end + (left > 1)
    return at
