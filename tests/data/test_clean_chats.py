"""Steps that measure text measure what is said in a conversation, never the JSON around it."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("rensa")

from gristmill.data import cleaning
from gristmill.data.clean_settings import NearStep
from gristmill.data.conversation import messages_of
from gristmill.data.document import Document
from gristmill.data.prose_settings import ProseStep, RepetitionStep, WebStep


def chat(number: int, question: str, answer: str) -> Document:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    text = json.dumps({"messages": turns})
    head = (f"{number:064x}", "src", f"a.jsonl#{number}.messages", ".", "MIT", "test")
    return Document(*head, len(text), 1, 2, "utf-8", text)


def removed(step: Any, *documents: Document) -> list[tuple[str, str, str]]:
    done = cleaning.clean(documents, [step], 1)
    return [(row.path, row.rule, row.value) for row in done.removed]


def test_short_conversations_are_no_near_duplicates_of_each_other() -> None:
    words = [("red?", "a colour"), ("two?", "some number"), ("oak?", "one tree"), ("ox?", "cattle")]
    given = [chat(number, *both) for number, both in enumerate(words)]
    done = cleaning.clean(given, [NearStep(use="near", threshold=0.5, group=0.3)], 1)
    assert [row.cluster for row in done.documents] == [0, 1, 2, 3]
    again = [*given, chat(4, *words[0])]
    near = NearStep(use="near", threshold=0.8)
    assert [path for path, *_ in removed(near, *again)] == ["a.jsonl#4.messages"]


def test_prose_counts_the_words_that_are_said() -> None:
    long = chat(1, "Tell me of the sea and of ships, would you?", "They sail with the wind.")
    prose = ProseStep(use="prose", min_words=6)
    short = chat(2, "What is it?", "The sea.")
    assert removed(prose, long, short) == [("a.jsonl#2.messages", "min_words", "5")]


def test_repetition_is_found_behind_escaped_line_ends() -> None:
    good = chat(1, "Say a, b and c.", "a one\nb two\nc three")
    loop = chat(2, "Say it.", "over and out\n" * 6)
    step = RepetitionStep(use="repetition", max_top=(1.0, 1.0, 1.0), max_runs=(1.0,) * 6)
    assert [(path, rule) for path, rule, _ in removed(step, good, loop)] == [
        ("a.jsonl#2.messages", "max_lines")
    ]


def test_web_lines_go_from_contents() -> None:
    said = "This is the first sentence.\nHome\nAnd here is the second one."
    bare = chat(2, "Where is it then?", "Home")
    step = WebStep(use="web", min_sentences=1, max_short=1.0)
    done = cleaning.clean([chat(1, "What does it say there?", said), bare], [step], 1)
    (row,) = done.documents
    assert [m["content"] for m in messages_of(row)] == [
        "What does it say there?", "This is the first sentence.\nAnd here is the second one."
    ]  # fmt: skip
    assert [(r.path, r.rule) for r in done.removed] == [("a.jsonl#2.messages", "drop_lines")]
