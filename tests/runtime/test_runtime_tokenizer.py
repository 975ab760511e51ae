"""The C++ tokenizer gives the ids of the `tokenizers` library, for any text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import SPECIALS, train_tokenizer, write_model
from tokenizers import Tokenizer

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")

TRICKY = [
    "'",
    "'s",
    "'re",
    "'LL",
    " ",
    "  ",
    "\n",
    "\t",
    "\r\n",
    "\x85",
    "\xa0",
    "\u2028",
    "\u3000",
    "\u200b",
]
TRICKY += [
    "a",
    "é",
    "Ω",
    "日本",
    "1",
    "²",
    "٣",
    "Ⅷ",
    "!",
    "_",
    "=>",
    "🙂",
    "e\u0301",
    "\ufeff",
    *SPECIALS,
    "<|fim",
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, Tokenizer, Tokenizer]:
    """Our model, the library's tokenizer, and the same without special tokens."""
    folder = tmp_path_factory.mktemp("tokenizer")
    model = _C.Model(str(write_model(folder)), True)
    data = json.loads((folder / "tokenizer.json").read_text())
    with_specials = Tokenizer.from_str(json.dumps(data))
    data["added_tokens"] = []
    return model, with_specials, Tokenizer.from_str(json.dumps(data))


def check(pair: tuple[object, Tokenizer, Tokenizer], text: str) -> None:
    model, with_specials, plain = pair
    for special, library in ((True, with_specials), (False, plain)):
        ids = model.tokenize(text.encode(), special)  # type: ignore[attr-defined]
        assert ids == library.encode(text, add_special_tokens=False).ids, (text, special)
        assert model.detokenize(ids) == text.encode()  # type: ignore[attr-defined]


def random_text(rng: random.Random, code: list[str]) -> str:
    kind = rng.random()
    if kind < 0.4:
        source = rng.choice(code)
        start = rng.randrange(len(source))
        return source[start : start + rng.randrange(300)]
    if kind < 0.7:
        return "".join(rng.choice(TRICKY) for _ in range(rng.randrange(30)))
    top = 0x110000 if kind < 0.85 else 0x3000
    points = (rng.randrange(top) for _ in range(rng.randrange(40)))
    return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)


def test_equals_the_library_on_5000_texts(pair: tuple[object, Tokenizer, Tokenizer]) -> None:
    code = [
        path.read_text(errors="ignore") for path in sorted(Path(json.__file__).parent.glob("*.py"))
    ]
    rng = random.Random(11)
    for _ in range(5000):
        check(pair, random_text(rng, code))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(TRICKY), st.text(max_size=5)), max_size=20).map("".join))
@example("")
@example("   x")
@example("a   \n\n  b \t")
@example("we'll've'sx'S")
def test_equals_the_library_on_any_text(
    pair: tuple[object, Tokenizer, Tokenizer], text: str
) -> None:
    check(pair, text)


def test_every_code_point_has_the_library_s_class(
    pair: tuple[object, Tokenizer, Tokenizer],
) -> None:
    """In 'a?1?!? ?' the class of ? decides where the pieces end."""
    points = [p for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    for start in range(0, len(points), 4096):
        check(
            pair, "".join(f"a{chr(p)}1{chr(p)}! {chr(p)}" for p in points[start : start + 4096 : 7])
        )


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_come_back(pair: tuple[object, Tokenizer, Tokenizer], data: bytes) -> None:
    model = pair[0]
    assert model.detokenize(model.tokenize(data, False)) == data  # type: ignore[attr-defined]


def test_a_long_run_of_one_letter(pair: tuple[object, Tokenizer, Tokenizer]) -> None:
    check(pair, "a" * 50_000 + " " * 50_000 + "\n" * 1000)


def test_special_ids_and_bytes(pair: tuple[object, Tokenizer, Tokenizer]) -> None:
    model, library, _ = pair
    for name in SPECIALS:
        id = library.token_to_id(name)
        assert model.tokenize(name.encode(), True) == [id]  # type: ignore[attr-defined]
        assert model.token_bytes(id) == name.encode()  # type: ignore[attr-defined]
        assert id not in model.tokenize(name.encode(), False)  # type: ignore[attr-defined]
    assert model.eos_id == library.token_to_id(SPECIALS[0])  # type: ignore[attr-defined]


@pytest.mark.parametrize("id", [-1, 331, 2**31 - 1])
def test_foreign_ids_are_refused(pair: tuple[object, Tokenizer, Tokenizer], id: int) -> None:
    with pytest.raises(ValueError, match="331"):
        pair[0].token_bytes(id)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="331"):
        pair[0].detokenize([0, id])  # type: ignore[attr-defined]


SPOILERS = {
    "model": (lambda d: d["model"].update(type="Unigram"), "not BPE"),
    "normalizer": (lambda d: d.update(normalizer={"type": "NFC"}), "normalizer"),
    "prefix space": (
        lambda d: d["pre_tokenizer"].update(add_prefix_space=True),
        "add_prefix_space",
    ),
    "pre-tokenizer": (
        lambda d: d.update(pre_tokenizer={"type": "Whitespace"}),
        "Whitespace.*no name in GGUF",
    ),
    "large id": (lambda d: d["model"]["vocab"].update(zz=5000), "5000"),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_writer_refuses_other_tokenizers(name: str, tmp_path: Path) -> None:
    from gristmill.checkpoint.gguf import read_vocabulary
    from gristmill.errors import DataError

    data = json.loads(train_tokenizer(331).to_str())
    change, reason = SPOILERS[name]
    change(data)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=reason):
        read_vocabulary(path, 331)
