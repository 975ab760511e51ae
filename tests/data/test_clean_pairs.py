"""Conversations in clean: rules for pairs, repairs of contents alone, duplicates by question."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("rensa")

from gristmill.data import cleaning
from gristmill.data.clean_settings import NearStep, PrivateStep, UnicodeStep
from gristmill.data.conversation import asked, check_pairs, messages_of, rewrite, text_of
from gristmill.data.document import Document
from gristmill.data.prose_settings import PairsStep
from gristmill.errors import DataError


def chat(number: int, *contents: str, system: str = "") -> Document:
    """A conversation of user and assistant in turns."""
    messages = [
        {"role": ("user", "assistant")[turn % 2], "content": text}
        for turn, text in enumerate(contents)
    ]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    text = json.dumps({"messages": messages})
    head = (f"{number:064x}", "src", f"a.jsonl#{number}.messages", ".", "MIT", "test")
    return Document(*head, len(text), 1, 2, "utf-8", text)


def step(**options: Any) -> PairsStep:
    return PairsStep(use="pairs", **options)


GOOD = chat(1, "What is 2 + 2?", "4", system="Be brief.")


@pytest.mark.parametrize(
    ("document", "rule", "value", "strict", "off"),
    [
        (chat(2, "q", "  \n"), "min_answer", "0", {}, {"min_answer": 0}),
        (chat(2, " ", "a"), "min_prompt", "0", {}, {"min_prompt": 0}),
        (chat(2, "q", "a", "more?"), "answered", "ends with user", {}, None),
        (chat(2, "q", "a" * 9), "max_answer", "9", {"max_answer": 8}, {"max_answer": 0}),
        (chat(2, "q" * 38, "a", system="s"), "max_characters", "40", {"max_characters": 30},
         {"max_characters": 0}),
        (chat(2, "q", "a", "q2", "a2", system="s"), "max_turns", "4", {"max_turns": 3},
         {"max_turns": 0}),
        (chat(2, " same ", "same"), "copies", "the answer is the prompt", {}, {"copies": True}),
        (chat(2, "what IS\n2 + 2? ", "5"), "prompts", "same prompt as src/a.jsonl#1.messages", {},
         {"prompts": "all"}),
    ],
)  # fmt: skip
def test_rules(
    document: Document, rule: str, value: str, strict: Any, off: dict[str, Any] | None
) -> None:
    first, second = check_pairs([GOOD, document], step(**strict))
    assert first is None and second is not None
    assert second[:2] == (rule, value) and second.threshold
    if off is not None:
        assert list(check_pairs([GOOD, document], step(**{**strict, **off}))) == [None, None]


def test_a_removed_row_does_not_stand_for_its_prompt() -> None:
    empty, good = chat(1, "q", ""), chat(2, "q", "a")
    assert [b and b.rule for b in check_pairs([empty, good], step())] == ["min_answer", None]


def test_what_is_no_conversation() -> None:
    text = Document("0" * 64, "src", "a.txt", ".", "MIT", "t", 1, 1, 1, "utf-8", "plain")
    (broken,) = check_pairs([text], step())
    assert broken is not None and broken.rule == "messages"
    assert asked(text) == "plain"
    for wrong in ("{}", "[]", "no JSON", '{"messages": [{"role": "user"}]}', '{"messages": 3}'):
        bad = Document("0" * 64, "src", "a#1.messages", ".", "MIT", "t", 1, 1, 1, "utf-8", wrong)
        with pytest.raises(DataError, match=r"src/a#1.messages holds no conversation"):
            messages_of(bad)


def test_contents_are_rewritten_and_the_rest_is_not() -> None:
    document = chat(1, 'say "x"\n', "é\\", system="S")
    text, lengths = rewrite(document, lambda text: (text.upper(), len(text)))
    assert lengths == [1, 8, 2]
    messages = json.loads(text)["messages"]
    assert [m["content"] for m in messages] == ["S", 'SAY "X"\n', "É\\"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant"]
    assert messages_of(document)[1]["content"] == 'say "x"\n'
    assert json.loads(text_of(messages)) == json.loads(text)


def test_steps_reach_into_the_messages() -> None:
    documents = [
        chat(1, "mail\r\nto whom?", "to jane@mill-works.net, please"),
        chat(2, "who?", "nobody"),
    ]
    steps: list[Any] = [UnicodeStep(use="unicode"), PrivateStep(use="private"), step()]
    done = cleaning.clean(documents, steps, seed=1)
    assert [d.path for d in done.documents] == ["a.jsonl#1.messages", "a.jsonl#2.messages"]
    question, answer = (m["content"] for m in messages_of(done.documents[0]))
    assert question == "mail\nto whom?"
    assert answer.startswith("to <EMAIL:") and answer.endswith(">, please")
    assert [row[3:] for row in done.repairs] == [("1-unicode", "line ends", 1)]
    assert [row[3:6] for row in done.audit] == [("email", 3, 19)]
    assert done.documents[1].text is documents[1].text


def test_near_duplicates_by_question() -> None:
    question = "please explain to me in simple words how a water mill grinds grain"
    documents = [
        chat(1, question + " today", "With stones."),
        chat(2, question + " now", "A river turns a wheel, which turns a shaft and the stones."),
        chat(3, "what is bread", "With stones."),
    ]
    near = NearStep(use="near", compare="prompt", threshold=0.9, group=0.4, words=2)
    done = cleaning.clean(documents, [near], seed=1)
    assert [d.cluster for d in done.documents] == [0, 0, 1]
