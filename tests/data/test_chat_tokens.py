"""Conversations as tokens: the ids of use, what counts, what does not fit; transformers agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("pydantic")

from gristmill.artifacts import read_json, write_json
from gristmill.data import chat
from gristmill.data.chat_templates import TEMPLATES
from gristmill.data.chat_tokens import (
    are_chats,
    choose_template,
    encode,
    encode_all,
    jinja_of,
    template_text,
)
from gristmill.data.conversation import text_of
from gristmill.data.document import Document
from gristmill.data.settings import ChatConfig
from gristmill.data.tokenizer import Tokenizer, train_tokenizer
from gristmill.errors import ConfigError, DataError

TEXT = "Which mill grinds the finest flour of all? The old one, by the river, and slowly."
MARKS = [mark for template in TEMPLATES.values() for mark in template.special]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT] * 3, 300, marks=MARKS)


def say(*contents: str, system: str = "") -> list[dict[str, str]]:
    turns = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system else []) + turns


def document(number: int, messages: list[dict[str, str]]) -> Document:
    head = (f"{number:064x}", "s", f"a.jsonl#{number}.messages", ".", "MIT", "t", 1, 1, 1, "utf-8")
    return Document(*head, text_of(messages))


TALK = say("Which mill?", "The old one.", "Where <|im_end|>?", " By the river.", system="Be <s>.")


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_ids_spell_the_rendered_text(name: str, tokenizer: Tokenizer) -> None:
    done = encode(TALK, name, tokenizer)
    assert done.ids[-1] == tokenizer.eos and len(done.counts) == len(done.ids)
    assert tokenizer.decode(done.ids[:-1]) == done.text
    rendered = chat.text_of(chat.render(TALK, name, bos="", eos="<|endoftext|>"))
    assert rendered.startswith(done.text)
    counted = tokenizer.decode([i for i, own in zip(done.ids, done.counts, strict=True) if own])
    ends = [counted.count(stop) for stop in chat.stops_of(name)[:1]]
    assert "The old one." in counted and "By the river." in counted and ends == [2]
    assert "Which" not in counted and "Be <s>" not in counted
    everything = encode(TALK, name, tokenizer, "all")
    assert everything.ids == done.ids and all(everything.counts)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_the_beginning_of_what_was_trained(name: str, tokenizer: Tokenizer) -> None:
    """What a server encodes up to the answer (part by part) are the ids before the counted ones."""
    done = encode(TALK, name, tokenizer)
    prompt: list[int] = []
    for part in chat.render(TALK[:-1], name, True, bos=""):
        prompt += [tokenizer.marks[part.text]] if part.special else tokenizer.encode(part.text)
    assert done.ids[: len(prompt)] == prompt
    assert done.counts[len(prompt)] and not done.counts[len(prompt) - 1]


def test_transformers_gives_the_same_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Where no content spells a special token: there transformers reads it as one."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("jinja2")
    tokenizer.save(tmp_path)
    plain = say("Which mill?", "The old one.", "Where?", "By the river.", system="Be brief.")
    for name in TEMPLATES:
        config = read_json(tmp_path / "tokenizer_config.json")
        write_json(tmp_path / "tokenizer_config.json", config | {"chat_template": jinja_of(name)})
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        got = theirs.apply_chat_template(plain[:-1], add_generation_prompt=True, return_dict=False)
        done = encode(plain, name, tokenizer)
        assert done.ids[: len(got)] == list(got), name
        assert done.counts[len(got)]


def test_too_long(tokenizer: Tokenizer) -> None:
    talk = say("Which mill?", "The old one.", "Where?", "River.", "When?", "Slowly.", system="S")
    sizes = [len(encode(m, "plain", tokenizer).ids) for m in (talk, talk[:1] + talk[3:], talk[:3])]
    documents = [document(1, talk), document(2, talk[:3])]

    def done(most: int, rule: str) -> Any:
        config = ChatConfig(max_tokens=most, too_long=rule)  # type: ignore[arg-type]
        return encode_all(documents, "plain", tokenizer, config)

    assert len(done(0, "leave out").tokens) == len(done(sizes[0], "leave out").tokens) == 2
    left = done(sizes[0] - 1, "leave out")
    assert left.kept == [1] and left.shortened == 0
    assert left.left_out == [{"path": "a.jsonl#1.messages", "id": f"{1:064x}", "tokens": sizes[0]}]
    dropped = done(max(sizes[1:]), "drop turns")
    assert dropped.kept == [0, 1] and dropped.shortened == 1 and not dropped.left_out
    text = dropped.documents[0].text
    assert "Where?" in text and "Which mill?" not in text and text.startswith("System:\nS")
    assert [row["tokens"] for row in done(5, "drop turns").left_out] == [sizes[0], sizes[2]]


def test_what_cannot_be_encoded(tokenizer: Tokenizer) -> None:
    bare = train_tokenizer([TEXT], 300)
    with pytest.raises(ConfigError, match=r"needs the token <\|im_start\|>.*= \"plain\""):
        encode(TALK, "chatml", bare)
    assert encode(TALK, "plain", bare).ids
    with pytest.raises(DataError, match=r"a.jsonl#1.messages has no answer to learn"):
        encode_all([document(1, say("q"))], "plain", tokenizer, ChatConfig())
    text = Document("0" * 64, "s", "a.txt", ".", "MIT", "t", 1, 1, 1, "utf-8", "text")
    assert are_chats([document(1, TALK)]) and not are_chats([text]) and not are_chats([])
    with pytest.raises(DataError, match="1 documents are conversations and 1 are not"):
        are_chats([text, document(1, TALK)])


def test_the_template_is_that_of_the_given_model(tmp_path: Path) -> None:
    auto = ChatConfig()
    assert choose_template(auto, None) == "chatml"
    assert choose_template(ChatConfig(template="zephyr"), tmp_path) == "zephyr"
    assert choose_template(auto, tmp_path) == "plain"
    config = tmp_path / "tokenizer_config.json"
    for given, name in ((TEMPLATES["llama3"].jinja, "llama3"), (jinja_of("llama2"), "llama2")):
        config.write_text(json.dumps({"chat_template": given}))
        assert choose_template(auto, tmp_path) == name
    several = [{"name": "tools", "template": "x"}, {"name": "default", "template": "y"}]
    config.write_text(json.dumps({"chat_template": several}))
    assert template_text(tmp_path) == "y"
    with pytest.raises(ConfigError, match=r"none of the known ones; give split.chat.template"):
        choose_template(auto, tmp_path)
    (tmp_path / "chat_template.jinja").write_text(jinja_of("alpaca"))
    assert choose_template(auto, tmp_path) == "alpaca"
