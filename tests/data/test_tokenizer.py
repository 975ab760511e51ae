"""The tokenizer: any text comes back, special tokens are never read from text, bad files named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers")

from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.tokenizer import SMALLEST, SPECIALS, Tokenizer, train_tokenizer
from gristmill.errors import ArtifactError, DataError

CODE = [Path(file).read_text("utf-8") for file in (json.__file__, json.decoder.__file__, __file__)]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(CODE, 600)


TEXT = st.lists(
    st.one_of(
        st.sampled_from([*SPECIALS, "<|", "  ", "\n", "\t", "'s", "def ", "return"]), st.text()
    )
).map("".join)


@settings(max_examples=300)
@given(TEXT)
def test_any_text_comes_back(trained: Tokenizer, text: str) -> None:
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert not set(ids) & set(trained.special.values())


@settings(max_examples=50)
@given(st.lists(TEXT, max_size=5))
def test_a_batch_is_its_texts_one_by_one(trained: Tokenizer, texts: list[str]) -> None:
    assert trained.encode_batch(texts) == [trained.encode(text) for text in texts]


def test_special_tokens_come_first(trained: Tokenizer) -> None:
    assert list(trained.special.values()) == [0, 1, 2, 3, 4]
    assert trained.eos == 0
    assert trained.vocab_size == 600
    assert [trained.token_bytes(i).decode() for i in range(5)] == list(SPECIALS)
    assert {trained.token_bytes(i) for i in range(600)} >= {bytes([b]) for b in range(256)}


def test_merges_shorten_text(trained: Tokenizer) -> None:
    text = CODE[0]
    assert len(trained.encode(text)) < 0.6 * len(text.encode())


def test_the_order_of_the_texts_does_not_matter(trained: Tokenizer, tmp_path: Path) -> None:
    for number, tokenizer in enumerate((trained, train_tokenizer(CODE[::-1], 600))):
        (tmp_path / str(number)).mkdir()
        tokenizer.save(tmp_path / str(number))
    first, second = ((tmp_path / n / "tokenizer.json").read_bytes() for n in "01")
    assert first == second


def test_save_and_load(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        again = Tokenizer.load(path)
        assert again.encode(CODE[1]) == trained.encode(CODE[1])
        assert again.special == trained.special
        assert again.encode(SPECIALS[0]) == trained.encode(SPECIALS[0]) != [0]


def test_transformers_reads_the_folder(trained: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    trained.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    text = CODE[1] + "  naïve 日本\n\n\t x"
    ids = theirs(text, add_special_tokens=True)["input_ids"]
    assert ids == trained.encode(text)
    assert theirs.decode(ids) == text
    assert theirs("a<|fim_middle|>b")["input_ids"][1] == trained.special["<|fim_middle|>"]
    assert theirs.eos_token_id == trained.eos


def test_too_few_ids() -> None:
    with pytest.raises(DataError, match=f"260 given, allowed: {SMALLEST} or more"):
        train_tokenizer(CODE, 260)
    assert train_tokenizer(CODE, SMALLEST).vocab_size == SMALLEST


def test_half_a_surrogate_pair(trained: Tokenizer) -> None:
    with pytest.raises(DataError, match="surrogate"):
        trained.encode("a\ud800b")


@pytest.mark.parametrize("id", [-1, 600, 2**40])
def test_foreign_id(trained: Tokenizer, id: int) -> None:
    with pytest.raises(IndexError, match="599"):
        trained.decode([5, id])


def _drop(data: dict[str, Any]) -> None:
    data["model"]["vocab"].pop("A")
    data["model"]["merges"] = []


SPOILERS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "model": (lambda d: d["model"].update(vocab={}, merges=[]), "no token"),
    "specials": (
        lambda d: (d.update(added_tokens=[]), d["model"]["vocab"].pop(SPECIALS[1])),
        "no token <|fim_prefix|>",
    ),
    "hole in the ids": (_drop, "no token has id"),
    "other alphabet": (lambda d: d["model"]["vocab"].update({"日": 600}), "byte alphabet"),
    "not a tokenizer": (lambda d: d.clear(), "no tokenizer.json"),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_foreign_files_are_named(trained: Tokenizer, name: str, tmp_path: Path) -> None:
    trained.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    data = json.loads(path.read_text())
    change, said = SPOILERS[name]
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=said) as caught:
        Tokenizer.load(tmp_path)
    assert str(path) in str(caught.value)


def test_missing_cut_and_binary_files(trained: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read"):
        Tokenizer.load(tmp_path)
    trained.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ArtifactError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match="not UTF-8"):
        Tokenizer.load(tmp_path)
