"""The byte n-gram against a dictionary version, and that it is a probability."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.evaluation.ngram import MOST, NGram

texts = st.lists(st.text("ab\x00é", max_size=20).map(str.encode), min_size=1, max_size=4)


def by_dictionary(train: list[bytes], test: bytes, order: int) -> float:
    """Bits of `test`, straight from the formula."""
    counts: list[Counter[bytes]] = [Counter() for _ in range(order)]
    for document in train:
        padded = bytes(MOST) + document
        for at in range(MOST, len(padded)):
            for length in range(order):
                counts[length][padded[at - length : at + 1]] += 1
    bits = 0.0
    padded = bytes(MOST) + test
    for at in range(MOST, len(padded)):
        p = 1 / 256
        for length in range(order):
            context = padded[at - length : at]
            after = [n for key, n in counts[length].items() if key[:-1] == context]
            if after:
                found = counts[length][context + padded[at : at + 1]]
                p = (found + len(after) * p) / (sum(after) + len(after))
        bits -= math.log2(p)
    return bits


@given(train=texts, test=texts, order=st.integers(1, MOST + 1))
def test_equals_the_formula(train: list[bytes], test: list[bytes], order: int) -> None:
    if not any(train):
        return
    got = NGram(train, order).bits(test)
    assert list(got.bytes) == [len(t) for t in test]
    for document, bits in zip(test, got.bits, strict=True):
        assert bits == pytest.approx(by_dictionary(train, document, order), rel=1e-9, abs=1e-9)


def test_only_what_counts_is_measured() -> None:
    model = NGram([b"what is it? it is a test"])
    asked, said = b"is it a test? ", b"it is"
    alone = model.bits([asked + said, asked])
    counts = [np.arange(len(asked + said)) >= len(asked), np.ones(len(said), np.bool_)]
    got = model.bits([asked + said, said], counts)
    assert got.bytes.tolist() == [len(said)] * 2
    assert got.bits[0] == pytest.approx(alone.bits[0] - alone.bits[1])  # given what stands before


def test_probabilities_of_the_next_byte_sum_to_one() -> None:
    model = NGram([b"abracadabra, abracadabra"], 4)
    start = b"abr"
    alone = model.bits([start]).bits[0]
    after = model.bits([start + bytes([b]) for b in range(256)]).bits - alone
    assert np.exp2(-after).sum() == pytest.approx(1.0)


def test_no_training_text_gives_eight_bits_at_most_nearly() -> None:
    unseen = NGram([b"a"], 1).bits([b"xyz"])
    assert unseen.per_byte == pytest.approx(-math.log2((1 / 256) / 2))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="order 9"):
        NGram([b"a"], 9)
    with pytest.raises(ValueError, match="at least one byte"):
        NGram([b""])
