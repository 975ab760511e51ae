"""Completion of holes: the prompt of the server, cut by kind, measured; and a live model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tokenizers")

from gristmill.data import fim, loader
from gristmill.data.document import Document
from gristmill.data.fim import FimTokens
from gristmill.data.holes import KINDS, Hole
from gristmill.data.tokenizer import Tokenizer, train_tokenizer
from gristmill.evaluation.chosen import choose_holes
from gristmill.evaluation.complete import ModelCompleter, Prompts, complete, fill, parses
from gristmill.serving.fim import infill_ids

TEXT = inspect.getsource(loader) + inspect.getsource(fim)
FILE = Document("f", "s", "loader.py", "a", "l", "w", len(TEXT), 0, 0, "utf-8", TEXT)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT], 400)


class Fixed:
    """Writes the same text everywhere, a few bytes at a time."""

    def __init__(self, text: str) -> None:
        self.data = text.encode()

    def pieces(self, prefix: str, suffix: str) -> Iterator[bytes]:
        for at in range(0, len(self.data), 3):
            yield self.data[at : at + 3]


class Knowing:
    """Writes what really follows, and the rest of the file behind it."""

    def pieces(self, prefix: str, suffix: str) -> Iterator[bytes]:
        assert TEXT.startswith(prefix) and TEXT.endswith(suffix)
        yield from (bytes([b]) for b in TEXT[len(prefix) :].encode())


def test_whoever_knows_the_text_is_exact() -> None:
    holes, _ = choose_holes([FILE], KINDS, 20, 3)
    assert {h.kind for h in holes} == set(KINDS)
    for one in complete(Knowing(), holes, {"f": TEXT}, max_tokens=10_000):
        assert one.exact and one.parses and one.truth == TEXT[one.hole.start : one.hole.end]
        assert one.similarity > 0.5 and one.keystrokes <= 1 + len(one.text) - len(one.truth)


def test_measures_by_hand() -> None:
    text = "x = (1 +\n 2)\ny = 3\n"
    hole = Hole("d", "a.py", "line", 13, 18)
    (one,) = complete(Fixed("y = (\nz"), [hole], {"d": text}, max_tokens=9)
    assert (one.truth, one.text, one.exact, one.parses) == ("y = 3", "y = (", False, False)
    assert one.similarity == pytest.approx(0.8)
    assert one.keystrokes == 3  # accept, take back "(", type "3"
    (plain,) = complete(Fixed("y"), [Hole("d", "a.txt", "line", 13, 18)], {"d": text}, max_tokens=9)
    assert plain.parses is None


def test_length_and_cut_characters() -> None:
    assert fill(Fixed("abcdefghi"), "line", "", "", 2) == "abcdef"
    assert fill(Fixed("ab€"), "line", "", "", 1) == "ab"  # € has three bytes, two are missing
    assert fill(Fixed("ab\ncd"), "line", "", "", 5) == "ab"


@pytest.mark.parametrize("text", ["x = = 1", "x = '\0'", "(" * 500 + ")" * 500])
def test_what_python_refuses_is_false(text: str) -> None:
    assert not parses(text)


words = st.lists(
    st.sampled_from(["def ", "x", " = ", "\n    ", "  ", "é", "\t", "1234", "日本 ", "'"])
)


@settings(max_examples=60)
@given(
    before=words,
    after=words,
    repeats=st.integers(1, 60),
    n_ctx=st.integers(8, 64),
    spm=st.booleans(),
)
def test_prompt_is_the_servers(
    tokenizer: Tokenizer, before: list[str], after: list[str], repeats: int, n_ctx: int, spm: bool
) -> None:
    """Encoding only what is near gives the ids that encoding everything gives."""
    prefix, suffix = "".join(before) * repeats, "".join(after) * repeats
    tokens = FimTokens.of(tokenizer.special, spm)
    whole: Any = SimpleNamespace(
        tokenize=lambda data, special: tokenizer.encode(data.decode()), metadata={}, bos_id=-1
    )
    expected = infill_ids(whole, tokens, prefix, suffix, "", [], n_ctx=n_ctx, n_predict=4)
    got = Prompts(tokenizer, n_ctx, 4, spm)(prefix, suffix)
    assert got == expected.ids
    if not expected.truncated:  # then it is also what training saw
        assert got == tokens.prompt(tokenizer.encode(prefix), tokenizer.encode(suffix))


def test_model_in_the_session_writes_what_the_engine_would(tokenizer: Tokenizer) -> None:
    pytest.importorskip("gristmill._C")
    import numpy as np

    import gristmill as gm

    gm.manual_seed(5)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
    model = gm.models.Llama(
        gm.models.LlamaConfig(vocab_size=tokenizer.vocab_size, **shape, **heads)
    )
    for p in model.parameters():
        if p.ndim == 2:
            gm.nn.init.normal_(p, 0.0, 0.3)
    completer = ModelCompleter(model, tokenizer, 16)
    for prefix, suffix in ((TEXT[:400], TEXT[500:]), ("", ""), (TEXT[:90], "")):
        got = b"".join(completer.pieces(prefix, suffix))
        ids = completer.prompts(prefix, suffix)
        start = len(ids)
        while len(ids) <= 64:  # a full context still gives one more id
            with gm.no_grad():
                chosen = int(np.argmax(model(np.array([ids], np.int32)).numpy()[0, -1]))
            if chosen in completer.ends:
                break
            ids.append(chosen)
        assert got == tokenizer.decode_bytes(ids[start:])
        assert len(ids) - start >= 16 or chosen in completer.ends
