"""Fill-in-the-middle: the permutation loses nothing and depends on its counters only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers")

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.data import fim
from gristmill.data.tokenizer import Tokenizer, train_tokenizer

SOURCE = Path(json.decoder.__file__).read_text("utf-8")
PRE, MID, SUF, EOS = 1, 2, 3, 0


@pytest.fixture(scope="module")
def codec() -> Tokenizer:
    return train_tokenizer([SOURCE], 500)


def restored(ids: list[int]) -> list[int]:
    """Ids of a permuted text in reading order, eos last."""
    assert [ids.count(mark) for mark in (PRE, MID, SUF, EOS)] == [1, 1, 1, 1]
    assert ids[0] == PRE and ids[-1] == EOS
    suffix, middle = ids.index(SUF), ids.index(MID)
    assert suffix < middle
    return ids[1:suffix] + ids[middle + 1 : -1] + ids[suffix + 1 : middle] + [EOS]


@given(
    st.lists(st.integers(5, 400), min_size=fim.SMALLEST, max_size=80),
    st.integers(0, 2**63),
    st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
)
def test_between_tokens_it_is_a_permutation(
    ids: list[int], seed: int, doc: int, closed: bool, spm: bool
) -> None:
    special = {fim.EOS: EOS, fim.PREFIX: PRE, fim.MIDDLE: MID, fim.SUFFIX: SUF}
    given_ids = [*ids, EOS] if closed else ids
    permuted = fim.permute(given_ids, seed, 3, doc, 1.0, float(spm), special)
    assert restored(permuted) == [*ids, EOS]
    assert (permuted[1] == SUF) >= spm


@settings(max_examples=200)
@given(st.text(min_size=40) | st.just(SOURCE[:900]), st.integers(0, 10**9), st.floats(0, 1))
@example("ééééééééééééééééééééééééééééééééééé", 1, 0.5)
def test_between_characters_the_text_comes_back(
    codec: Tokenizer, text: str, doc: int, spm: float
) -> None:
    ids = codec.encode(text)
    permuted = fim.permute([*ids, EOS], 7, 0, doc, 1.0, spm, codec.special, codec)
    assert codec.decode(restored(permuted)[:-1]) == text
    assert len(permuted) <= len(ids) + fim.SENTINELS + fim.SLACK
    assert permuted == fim.permute([*ids, EOS], 7, 0, doc, 1.0, spm, codec.special, codec)


def test_a_part_that_begins_inside_a_character(codec: Tokenizer) -> None:
    ids = codec.encode("日本語" * 20)[1:]
    with pytest.raises(UnicodeDecodeError):
        codec.decode_bytes(ids).decode()
    permuted = fim.permute(ids, 7, 0, 1, 1.0, 0.5, codec.special, codec)
    assert restored(permuted) == [*ids, EOS]


def test_the_rate_is_the_share_of_texts(codec: Tokenizer) -> None:
    ids = list(range(5, 45))
    for rate in (0.0, 0.3, 1.0):
        changed = [
            fim.permute(ids, 1, 2, doc, rate, 0.5, codec.special) != ids for doc in range(2000)
        ]
        assert np.mean(changed) == pytest.approx(rate, abs=4 * 0.5 / 2000**0.5)
        assert changed == fim.has_hole(1, 2, np.arange(2000), rate).tolist()


def test_psm_and_spm_are_mixed_at_the_rate(codec: Tokenizer) -> None:
    ids = list(range(5, 45))
    spm = [fim.permute(ids, 1, 2, d, 1.0, 0.25, codec.special)[1] == SUF for d in range(2000)]
    # a PSM text with an empty prefix looks the same: cuts at 0 of 41 places
    assert np.mean(spm) == pytest.approx(0.25 + 0.75 * 2 / 41, abs=0.05)


def test_short_texts_stay(codec: Tokenizer) -> None:
    ids = list(range(5, 5 + fim.SMALLEST - 1))
    assert fim.permute(ids, 1, 2, 3, 1.0, 0.5, codec.special) == ids


def test_prompts_are_beginnings_of_permuted_texts(codec: Tokenizer) -> None:
    psm, spm = (fim.FimTokens.of(codec.special, first) for first in (False, True))
    assert psm.prompt([10, 11], [12]) == [PRE, 10, 11, SUF, 12, MID]
    assert spm.prompt([10, 11], [12]) == [PRE, SUF, 12, MID, 10, 11]


TEXT = "def add(left, right):\n    return left + right\n\nprint(1)\n"


@given(st.text() | st.just(TEXT), *(st.floats(0, 1, exclude_max=True) for _ in range(3)))
def test_cuts_are_in_order_and_inside(text: str, kind: float, one: float, two: float) -> None:
    first, second = fim.cuts(text, kind, one, two)
    assert 0 <= first <= second <= len(text)


@pytest.mark.parametrize(
    ("kind", "at", "two", "middle"),
    [
        (0.0, 4, 7.5 / (len(TEXT) + 1), "add"),
        (0.5, 30, 0.3, "rn left + right"),
        (0.5, 30, 0.9, "return left + right"),
        (0.5, 4, 0.2, "add(left, right):\n    return left + right"),
        (0.9, 8, 0.0, "left"),
        (0.9, 14, 0.0, "right"),
        (0.9, len(TEXT), 0.0, ""),
    ],
)
def test_kinds_of_holes(kind: float, at: int, two: float, middle: str) -> None:
    first, second = fim.cuts(TEXT, kind, (at + 0.5) / (len(TEXT) + 1), two)
    assert TEXT[first:second] == middle
