"""The two baselines against slow versions of themselves, on a tokenizer of single bytes."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.evaluation.hole_baselines import CacheNGram, LongestCopy

letters = st.text("abc", max_size=30)


class Bytes:
    """Id 0 ends a document, id b + 1 is the byte b."""

    vocab_size = 257
    special = {"<|endoftext|>": 0}  # noqa: RUF012

    def encode(self, text: str) -> list[int]:
        return [b + 1 for b in text.encode()]

    def token_bytes(self, id: int) -> bytes:
        return bytes([id - 1])


def ids(*documents: str) -> np.ndarray:
    return np.array([i for d in documents for i in [*Bytes().encode(d), 0]], np.uint16)


def written(completer: CacheNGram | LongestCopy, prefix: str, suffix: str, n: int = 12) -> str:
    return b"".join(islice(completer.pieces(prefix, suffix), n)).decode()


def longest_by_search(train: list[str], prefix: str, suffix: str, n: int) -> str:
    """Try every length from the longest; sources in order, the last occurrence counts."""
    for length in range(len(prefix), 0, -1):
        end = prefix[-length:]
        for source in (prefix, suffix, "\0".join([*train, ""])):
            at = source.rfind(end, 0, len(source) - 1)
            if at >= 0:
                return source[at + length :].split("\0")[0][:n]
    return ""


@given(train=st.lists(letters, min_size=1, max_size=4), prefix=letters, suffix=letters)
def test_copy_equals_a_search(train: list[str], prefix: str, suffix: str) -> None:
    copier = LongestCopy(ids(*train), Bytes())
    assert written(copier, prefix, suffix) == longest_by_search(train, prefix, suffix, 12)


def next_by_counting(train: list[str], file: str, at: int, order: int) -> str:
    """The formula, on strings; "\\0" ends."""
    text = "\0".join([*train, ""])
    for length in range(min(order - 1, at), 0, -1):
        context = file[at - length : at]
        known = [
            text[i + length] for i in range(len(text) - length) if text[i:].startswith(context)
        ]
        local = [
            file[i + length]
            for i in range(len(file) - length)
            if file[i:].startswith(context) and (i + length < at or i >= at)
        ]
        if known or local:
            share = Fraction(1, 1 + len(local)) if known else Fraction(0)
            weight = {
                c: share * Fraction(known.count(c), max(1, len(known)))
                + (1 - share) * Fraction(local.count(c), max(1, len(local)))
                for c in {*known, *local}
            }
            return min(c for c, w in weight.items() if w == max(weight.values()))
    return "\0"


@given(
    train=st.lists(letters, min_size=3, max_size=5), prefix=letters, suffix=letters,
    order=st.integers(2, 5),
)  # fmt: skip
def test_ngram_equals_counting(train: list[str], prefix: str, suffix: str, order: int) -> None:
    train = ["abcab", *train]
    model = CacheNGram(ids(*train), Bytes(), order)
    file, at = prefix + suffix, len(prefix)
    for char in written(model, prefix, suffix, 6):
        assert char == next_by_counting(train, file, at, order)
        file, at = file[:at] + char + file[at:], at + 1


def test_what_the_file_repeats_wins_over_training() -> None:
    model = CacheNGram(ids("self.name = other", "self.name = other"), Bytes(), 5)
    assert written(model, "self.", "") == "name = other"
    assert written(model, "self.foo self.foo self.", "", 3) == "foo"


def test_too_little_to_count() -> None:
    with pytest.raises(ValueError, match="needs 3 or more"):
        CacheNGram(np.array([1, 2], np.uint16), Bytes(), 5)
