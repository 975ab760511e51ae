"""Fill-in-the-middle prompts and their budget."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from serving_fake import FIRST_SPECIAL, FakeModel

from gristmill.serving.fim import (
    SNIPPET,
    FimPrompt,
    FimTokens,
    completion_ids,
    control_ids,
    fim_tokens,
    infill_ids,
)

MODEL = FakeModel()
PRE, MID, SUF = (FIRST_SPECIAL + i for i in (1, 2, 3))
TOKENS = FimTokens(prefix=PRE, suffix=SUF, middle=MID)


def infill(
    prefix: str, suffix: str, prompt: str = "", extra: tuple[str, ...] = (), **sizes: int
) -> FimPrompt:
    settings = {"n_ctx": 4096, "n_predict": 16, **sizes}
    return infill_ids(MODEL, TOKENS, prefix, suffix, prompt, extra, **settings)


def test_sentinels_come_from_the_file() -> None:
    assert fim_tokens(MODEL.metadata) == TOKENS
    assert fim_tokens(FakeModel(fim=False).metadata) is None
    assert control_ids(MODEL) == frozenset(range(FIRST_SPECIAL, FIRST_SPECIAL + 5))


def test_psm_order_and_sentinels_in_text_stay_text() -> None:
    ids = completion_ids(MODEL, TOKENS, "ab", "c<|fim_middle|>")
    assert ids == [PRE, *b"ab", SUF, *b"c<|fim_middle|>", MID]
    assert ids.count(MID) == 1


def test_a_file_may_ask_for_the_suffix_first() -> None:
    asked = fim_tokens(FakeModel(**{"gristmill.fim.order": "spm"}).metadata)
    assert asked == replace(TOKENS, suffix_first=True)
    assert fim_tokens(FakeModel(**{"gristmill.fim.order": "psm"}).metadata) == TOKENS
    assert completion_ids(MODEL, asked, "ab", "yz") == [PRE, SUF, *b"yz", MID, *b"ab"]
    made = infill_ids(MODEL, asked, "ab", "yz", "cd", ["e"], n_ctx=256, n_predict=16)
    assert made.ids[-9:] == [PRE, SUF, *b"yz", MID, *b"abcd"]
    assert MODEL.detokenize(made.ids[:-9]).decode() == f"{SNIPPET}e"


def test_bos_only_where_the_model_asks() -> None:
    model = FakeModel(**{"tokenizer.ggml.add_bos_token": True})
    model.bos_id = 5
    assert completion_ids(model, TOKENS, "a", "b")[0] == 5
    assert completion_ids(MODEL, TOKENS, "a", "b")[0] == PRE


def test_short_texts_are_whole_and_the_prompt_follows_the_prefix() -> None:
    made = infill("ab", "yz", "cd")
    assert made.ids == [PRE, *b"abcd", SUF, *b"yz", MID]
    assert not made.truncated


def test_three_quarters_prefix_one_quarter_suffix() -> None:
    made = infill("p" * 5000, "s" * 5000, "q" * 10, n_ctx=8192)
    at = made.ids.index(SUF)
    assert made.ids[1:at].count(ord("p")) == 3 * 2048 // 4
    assert made.ids[at + 1 : -1] == [ord("s")] * (2048 // 4 - 10)
    assert made.truncated


def test_the_end_of_the_prefix_and_the_start_of_the_suffix_are_kept() -> None:
    made = infill("x" * 500 + "NEAR", "near" + "y" * 500, n_ctx=64)
    text = MODEL.detokenize(made.ids).decode()
    assert "NEAR<|fim_suffix|>near" in text


def test_extra_fills_what_is_left_from_its_end() -> None:
    made = infill("p" * 5000, "", extra=("A" * 3000, "B" * 3000), n_ctx=4096)
    assert made.ids.count(ord("B")) == 4096 - 16 - 3 - 3 * 2048 // 4
    assert len(made.ids) == 4096 - 16
    small = infill("p", "s", extra=("one", "two"))
    assert MODEL.detokenize(small.ids).decode().startswith(f"{SNIPPET}one{SNIPPET}two<|fim_pre")


@given(
    st.integers(0, 900),
    st.integers(0, 900),
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(16, 600),
    st.integers(-2, 700),
)
def test_every_prompt_leaves_room(
    prefix: int, suffix: int, prompt: int, extra: int, n_ctx: int, n_predict: int
) -> None:
    texts = ("p" * prefix, "s" * suffix, "q" * prompt, ("e" * extra,))
    made = infill(*texts, n_ctx=n_ctx, n_predict=n_predict)
    assert len(made.ids) < n_ctx
    wanted = n_predict if n_predict >= 0 else n_ctx // 4
    assert n_ctx - len(made.ids) >= min(wanted, n_ctx // 2)
    assert [made.ids.count(i) for i in (PRE, SUF, MID)] == [1, 1, 1]
    given = prefix + suffix + prompt + extra + len(MODEL.tokenize(SNIPPET.encode(), False))
    assert len(made.ids) - 3 + made.cut_prefix + made.cut_suffix + made.cut_extra == given
