"""Every known rule of pieces gives the ids of the `tokenizers` library, for any text."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rewritten import rewrite
from tiny import Shape, write_folder
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")

from gristmill.checkpoint.gguf import write_gguf  # noqa: E402
from gristmill.checkpoint.vocabulary import read_vocabulary  # noqa: E402
from gristmill.data.pieces import PIECES, ignore_merges, name_of, pre_tokenizer  # noqa: E402
from gristmill.errors import DataError  # noqa: E402

VOCAB = 1400
# letters, numbers, signs and spaces of every kind; what turns into s, ss, st or l without case
HARD = list("aAzsSTlLdDvVeErRmM'’!?_=.,(){}#$1290 \t\n\r\x0b\x0c")
HARD += ["'s", "'S", "'ll", "'LL", "'Ve", "'rE", "'ſ", "ſ", "ß", "'ﬆ", "ŉ", "  ", "\r\n", "\n\n"]
HARD += ["\x85", "\xa0", "\u2028", "\u2029", "\u3000", "\u200b", "\ufeff", "é", "e\u0301", "Ω"]
HARD += ["日本", "中", "ॐ", "²", "½", "٣", "Ⅷ", "𝟘", "🙂", "\u200d", "ª", "ǅ", "١٢٣٤"]
ADDED = ("<|endoftext|>", "<|im_start|>")
ANY = [*HARD, *ADDED, "zzAzzA", "<|im"]
Pair = tuple[Any, Tokenizer, Tokenizer]


@functools.cache
def trained() -> str:
    """A BPE whose merges join anything: a wrong cut shows in the ids."""
    rng = random.Random(5)
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - len(ADDED) - 2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = ["".join(rng.choice(HARD) for _ in range(60)) for _ in range(3000)]
    inner.train_from_iterator(lines, trainer)
    text: str = inner.to_str()
    return text


def crossing_tokenizer(name: str) -> dict[str, Any]:
    """A tokenizer.json with those merges and the pieces of `name`.

    One token cannot be reached by merging: it is used where a piece is looked up whole.
    """
    data: dict[str, Any] = json.loads(trained())
    data["model"]["vocab"]["zzAzzA"] = VOCAB - len(ADDED) - 2
    data["pre_tokenizer"] = pre_tokenizer(name)
    data["model"]["ignore_merges"] = ignore_merges(name)
    whole = Tokenizer.from_str(json.dumps(data))
    whole.add_special_tokens([AddedToken(ADDED[0], normalized=False, special=True)])
    whole.add_tokens([AddedToken(ADDED[1], normalized=False)])  # user-defined: always one token
    made: dict[str, Any] = json.loads(whole.to_str())
    return made


@pytest.fixture(scope="module", params=PIECES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Our model, the library's tokenizer, and the same with special tokens as text."""
    folder = write_folder(tmp_path_factory.mktemp("pieces"), Shape(vocab=VOCAB, hidden=8))
    data = json.dumps(crossing_tokenizer(request.param))
    (folder / "tokenizer.json").write_text(data)
    write_gguf(folder, folder / "model.gguf")
    model = _C.Model(str(folder / "model.gguf"), True)
    assert model.metadata["tokenizer.ggml.pre"] == request.param
    plain = Tokenizer.from_str(data)
    plain.encode_special_tokens = True
    return model, Tokenizer.from_str(data), plain


def check(pair: Pair, text: str) -> None:
    model, with_specials, plain = pair
    for special, library in ((True, with_specials), (False, plain)):
        ids = model.tokenize(text.encode(), special)
        assert ids == library.encode(text, add_special_tokens=False).ids, (text, special)
        assert model.detokenize(ids) == text.encode()


def test_equals_the_library_on_hard_texts(pair: Pair) -> None:
    rng = random.Random(11)
    for _ in range(6000):
        check(pair, "".join(rng.choice(ANY) for _ in range(rng.randrange(40))))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(ANY), st.text(max_size=5)), max_size=20).map("".join))
@example("")
@example("   x")
@example("a   \n\n  b \t")
@example("'ſ'LL'sx 12345 !!\n\n  \r\n")
@example("zzAzzA zzAzzA")
@example("a<|im_start|>b<|endoftext|>c")
def test_equals_the_library_on_any_text(pair: Pair, text: str) -> None:
    check(pair, text)


def test_every_code_point_falls_into_its_class(pair: Pair) -> None:
    points = [p for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    for start in range(0, len(points), 4096):
        check(
            pair,
            "".join(f"a{chr(p)}1{chr(p)}! {chr(p)}" for p in points[start : start + 4096 : 23]),
        )


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_bytes_come_back(pair: Pair, data: bytes) -> None:
    model = pair[0]
    assert model.detokenize(model.tokenize(data, False)) == data


def test_long_runs_take_no_square_of_their_length(pair: Pair) -> None:
    check(pair, "a" * 20_000 + " " * 20_000 + "\n" * 20_000 + "1" * 20_000 + "!" * 20_000)


def saved(folder: Path, data: dict[str, Any]) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("name", PIECES)
def test_a_rule_is_known_by_what_it_does(name: str, tmp_path: Path) -> None:
    data = crossing_tokenizer(name)
    assert read_vocabulary(saved(tmp_path, data), VOCAB).pre == name
    data["model"]["ignore_merges"] = not ignore_merges(name)
    with pytest.raises(DataError, match=f"that of {name}, which has ignore_merges"):
        read_vocabulary(saved(tmp_path, data), VOCAB)


def test_an_unknown_rule_is_shown_and_not_guessed(tmp_path: Path) -> None:
    data = crossing_tokenizer("qwen2")
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+|\p{N}{1,2}"
    with pytest.raises(DataError, match=r"p\{N\}\{1,2\}.*gpt-2, llama-bpe, qwen2, smollm"):
        read_vocabulary(saved(tmp_path, data), VOCAB)
    for other in (None, {"type": "Whitespace"}, {"type": "Digits", "individual_digits": True}):
        with pytest.raises(DataError, match="no name in GGUF"):
            name_of(other)


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {
        "<|endoftext|>": {"id": "<|endoftext|>", "ids": [VOCAB - 2], "tokens": ["<|endoftext|>"]}
    },
}


def test_bos_is_what_the_post_processor_puts_before_a_text(tmp_path: Path) -> None:
    from gristmill.serving.fim import with_bos

    folder = write_folder(tmp_path, Shape(vocab=VOCAB, hidden=8))
    data = crossing_tokenizer("llama-bpe")
    bos = next(t["id"] for t in data["added_tokens"] if t["special"])
    data["post_processor"] = TEMPLATE
    write_gguf_of(folder, data)
    model = _C.Model(str(folder / "model.gguf"), True)
    assert model.bos_id == bos
    assert with_bos(model, [1]) == [bos, 1]
    silent = rewrite(folder / "model.gguf", folder / "silent.gguf", drop="add_bos_token")
    assert with_bos(_C.Model(str(silent), True), [1]) == [bos, 1]  # as llama.cpp does for this rule
    data["post_processor"] = None
    write_gguf_of(folder, data)
    assert with_bos(_C.Model(str(folder / "model.gguf"), True), [1]) == [1]
    data["post_processor"] = TEMPLATE | {"single": TEMPLATE["single"][::-1]}  # type: ignore[index]
    with pytest.raises(DataError, match="more than put a token before"):
        write_gguf_of(folder, data)


def write_gguf_of(folder: Path, tokenizer: dict[str, Any]) -> None:
    saved(folder, tokenizer)
    write_gguf(folder, folder / "model.gguf")


def test_an_unknown_name_in_a_file_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, Shape(hidden=8))
    write_gguf(folder, folder / "model.gguf")
    foreign = rewrite(folder / "model.gguf", folder / "foreign.gguf", pre="tekken")
    with pytest.raises(ValueError, match="'tekken'; 'gpt-2', 'llama-bpe', 'qwen2', 'smollm'"):
        _C.Model(str(foreign), True)
