"""Conversations as documents: the text is JSON, {"messages": [{"role": ..., "content": ...}, ...]}.

Steps that read or repair text do so to each content on its own, never to the JSON around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gristmill.data import chat
from gristmill.data.code_rules import Broken
from gristmill.data.document import Document, is_chat
from gristmill.data.prose_settings import PairsStep
from gristmill.errors import DataError

_SPACE = re.compile(r"\s+")


def messages_of(document: Document) -> list[dict[str, str]]:
    """Return the messages of a conversation; raises DataError where its text holds none."""
    try:
        found = json.loads(document.text)["messages"]
        chat.check(found)
    except (ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise DataError(
            f"{document.source}/{document.path} holds no conversation ({error}); "
            'its text must be {"messages": [...]}'
        ) from None
    return [{"role": m["role"], "content": m["content"]} for m in found]


def text_of(messages: Iterable[dict[str, str]]) -> str:
    """Return messages as the text of a document."""
    return json.dumps({"messages": list(messages)}, ensure_ascii=False)


def asked(document: Document) -> str:
    """Return what is asked in a conversation, all turns; of another document its text."""
    if not is_chat(document.path):
        return document.text
    return "\n".join(m["content"] for m in messages_of(document) if m["role"] == "user")


def flat(document: Document) -> str:
    """Return all text that is in a document, of a conversation without the JSON around it."""
    if not is_chat(document.path):
        return document.text
    return "\n".join(m["content"] for m in messages_of(document))


def rewrite(document: Document, repair: Callable[[str], tuple[str, Any]]) -> tuple[str, list[Any]]:
    """Return the text with `repair` done to each content, and what repair said of each.

    A document that is no conversation is one content.
    """
    if not is_chat(document.path):
        text, said = repair(document.text)
        return text, [said]
    messages, found = messages_of(document), []
    for message in messages:
        new, said = repair(message["content"])
        found.append(said)
        message["content"] = new
    return text_of(messages), found


def check_pairs(documents: Iterable[Document], step: PairsStep) -> Iterator[Broken | None]:
    """Yield for each document the first rule of the step that it breaks, or None."""
    seen: dict[str, str] = {}
    for document in documents:
        broken = _check(document, step)
        if broken is None and step.prompts == "once":
            key = _SPACE.sub(" ", asked(document)).strip().casefold()
            place = f"{document.source}/{document.path}"
            if key in seen:
                broken = Broken("prompts", f"same prompt as {seen[key]}", "each prompt once")
            else:
                seen[key] = place
        yield broken


def _check(document: Document, step: PairsStep) -> Broken | None:
    if not is_chat(document.path):
        return Broken("messages", "no conversation", "messages, or prompt and response")
    messages = messages_of(document)
    turns = [m for m in messages if m["role"] != "system"]
    if turns[-1]["role"] != "assistant":
        return Broken("answered", f"ends with {turns[-1]['role']}", "ends with an answer")
    if step.max_turns and len(turns) > step.max_turns:
        return Broken("max_turns", str(len(turns)), f"<= {step.max_turns}")
    size = sum(len(m["content"]) for m in messages)
    if step.max_characters and size > step.max_characters:
        return Broken("max_characters", str(size), f"<= {step.max_characters}")
    before = ""
    for message in turns:
        broken = _check_turn(message, before, step)
        if broken is not None:
            return broken
        before = message["content"].strip()
    return None


def _check_turn(message: dict[str, str], before: str, step: PairsStep) -> Broken | None:
    text = message["content"].strip()
    if message["role"] == "user":
        if len(text) < step.min_prompt:
            return Broken("min_prompt", str(len(text)), f">= {step.min_prompt}")
        return None
    if len(text) < step.min_answer:
        return Broken("min_answer", str(len(text)), f">= {step.min_answer}")
    if step.max_answer and len(text) > step.max_answer:
        return Broken("max_answer", str(len(text)), f"<= {step.max_answer}")
    if not step.copies and text == before:
        return Broken("copies", "the answer is the prompt", "another text")
    return None
