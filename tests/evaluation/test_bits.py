"""Bits per byte: every target once, the sum of a known model, no influence of batching."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.evaluation.bits import Bits, bits_per_byte, windows

V, EOS = 11, 0
LENGTHS = np.array([0, *range(1, V)])  # id 0 is special, id i has i bytes


class Bigram:
    """A model that looks at one id only, so windows cannot change what it says."""

    def __init__(self) -> None:
        raw = np.random.default_rng(1).random((V, V)) + 0.1
        self.table = np.log(raw / raw.sum(1, keepdims=True))
        self.calls = 0

    def token_losses(
        self, ids: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float32]:
        self.calls += 1
        losses = -self.table[ids, np.maximum(targets, 0)]
        return np.where(targets >= 0, losses, 0.0).astype(np.float32)


documents = st.lists(st.lists(st.integers(1, V - 1), max_size=40), min_size=1, max_size=25)


@given(length=st.integers(1, 200), context=st.integers(1, 64), data=st.data())
def test_windows_count_every_target_once(length: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    counted: list[int] = []
    for w in windows(0, length, context, stride):
        assert 0 <= w.start <= w.count < w.stop <= length
        assert w.stop - w.start <= context
        assert w.start == 0 or w.count - w.start >= context - stride  # what the model sees before
        counted += range(w.count, w.stop)
    assert counted == list(range(length))


@given(texts=documents, context=st.integers(1, 16), data=st.data())
def test_equals_the_sum_over_each_document(
    texts: list[list[int]], context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    model = Bigram()
    shard = [np.array([*text, EOS], np.uint16) for text in texts]
    got = bits_per_byte(model, shard, LENGTHS, context=context, stride=stride)
    for ids, bits, size in zip(shard, got.bits, got.bytes, strict=True):
        before = [EOS, *ids[:-1]]
        expected = -model.table[before, ids].sum() / np.log(2)
        assert bits == pytest.approx(expected, rel=1e-6)
        assert size == ids.sum()  # id i has i bytes


@given(texts=documents, context=st.integers(1, 16), data=st.data())
def test_only_what_counts_is_measured(
    texts: list[list[int]], context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    model = Bigram()
    shard = [np.array([*text, EOS], np.uint16) for text in texts]
    draw = st.integers(0, 2**32)
    counts = [np.random.default_rng(data.draw(draw)).random(len(ids)) < 0.5 for ids in shard]
    got = bits_per_byte(model, shard, LENGTHS, context=context, stride=stride, counts=counts)
    for ids, own, bits, size in zip(shard, counts, got.bits, got.bytes, strict=True):
        before = np.array([EOS, *ids[:-1]])
        expected = -model.table[before[own], ids[own]].sum() / np.log(2)
        assert bits == pytest.approx(expected, rel=1e-6)
        assert size == ids[own].sum()


def test_progress_ends_at_one_and_batches_are_full() -> None:
    model = Bigram()
    shard = [np.array([*([3] * 100), EOS])] * 5
    seen: list[float] = []
    bits_per_byte(model, shard, LENGTHS, context=8, stride=4, progress=seen.append)
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert model.calls == len(seen) == -(-5 * 25 // 16)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="stride 9"):
        list(windows(0, 5, 8, 9))
    with pytest.raises(ValueError, match="end-of-text"):
        bits_per_byte(Bigram(), [np.array([], np.int64)], LENGTHS, context=4, stride=2)
    with pytest.raises(ValueError, match="no bytes"):
        _ = Bits(np.zeros(1), np.zeros(1, np.int64)).per_byte
