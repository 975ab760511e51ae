"""Recipes text and assistant: they are whole configurations, also quick and by the minute."""

from __future__ import annotations

import pytest

pytest.importorskip("pydantic")

from gristmill import config


@pytest.mark.parametrize("name", ["text", "assistant"])
def test_recipes_are_whole(name: str) -> None:
    plain, quick = config.load(name), config.load(name, quick=True)
    assert plain.project.name == name and plain.train.fim_rate == 0.0
    assert quick.design.minutes < 1.0 and quick.project.gates == "record"
    for minutes in (3, 20, 120):
        scaled = config.load(name, minutes=minutes)
        assert scaled.split.chat.max_tokens <= scaled.design.context


def test_what_the_recipes_are_for() -> None:
    text, assistant = config.load("text"), config.load("assistant")
    assert [s.use for s in text.clean.step][1:3] == ["prose", "repetition"]
    assert assistant.split.chat.loss == "answers" and assistant.split.chat.max_tokens
    (near,) = [s for s in assistant.clean.step if s.use == "near"]
    assert near.compare == "prompt" and near.keep == "all"
