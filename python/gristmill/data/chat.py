"""Conversations as the model sees them: messages in, parts of text and special tokens out.

Which part is a special token is said by the template alone: a content that spells one stays text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gristmill.data.chat_templates import BOS, EOS, TEMPLATES, Template
from gristmill.errors import ConfigError, DataError

ROLES = ("system", "user", "assistant")
END_OF_TEXT = "<|endoftext|>"  # what gristmill's own tokenizers begin and end with
Message = Mapping[str, str]


class Part(NamedTuple):
    """A piece of a rendered conversation."""

    text: str
    special: bool  # one special token, spelled so
    counts: bool  # written by the assistant: counts in the loss


def template_of(name: str) -> Template:
    """Return a template by its name; raises ConfigError for one that does not exist."""
    if name not in TEMPLATES:
        raise ConfigError(f"chat template {name!r} given; allowed: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def check(messages: Sequence[Message], template: str = "chatml") -> None:
    """Raise DataError unless these are messages that the template can render."""
    if not messages:
        raise DataError("a conversation without messages; give at least one of role user")
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise DataError(f"message {number} has role {role!r}; allowed: {', '.join(ROLES)}")
        if not isinstance(content, str):
            kind = type(content).__name__
            raise DataError(f"message {number} has content of type {kind}; allowed: text")
        if role == "system" and number:
            raise DataError(f"message {number} has role system; allowed: the first message alone")
    turns = [message["role"] for message in messages if message["role"] != "system"]
    if not turns:
        raise DataError("a conversation of a system message alone; give one of role user")
    if template_of(template).alternate:
        for number, role in enumerate(turns):
            if role != ("user", "assistant")[number % 2]:
                raise DataError(
                    f"turn {number} is of role {role}; with template {template!r} user and "
                    "assistant must alternate, user first"
                )


def render(
    messages: Sequence[Message],
    template: str,
    add_generation_prompt: bool = False,
    *,
    bos: str = END_OF_TEXT,
    eos: str = END_OF_TEXT,
) -> list[Part]:
    """Return the parts of a conversation; their texts together are what transformers renders.

    bos, eos: how the model's tokenizer spells its own two; empty where it has none. Neighbouring
    texts are one part unless only one of them counts: so an answer is encoded on its own, as it is
    when the model writes it. Raises ConfigError for an unknown template, DataError for messages it
    cannot hold.
    """
    chosen = template_of(template)
    check(messages, template)
    writer = _Writer(chosen, bos, eos)
    writer.add(chosen.begin)
    held = ""  # a system message that waits for the first user message
    for message in messages:
        content = message["content"].strip() if chosen.trim else message["content"]
        if message["role"] == "system":
            if chosen.inside:
                held = chosen.system.replace("{}", content)
            else:
                writer.add(chosen.system, content)
        elif message["role"] == "user":
            writer.add(chosen.user, held + content)
            held = ""
        else:
            writer.add(chosen.prompt)
            writer.add(chosen.answer, content, counts=True)
            writer.add(chosen.after)
    if add_generation_prompt:
        writer.add(chosen.prompt)
    return writer.parts


def text_of(parts: Sequence[Part]) -> str:
    """Return the parts as one text."""
    return "".join(part.text for part in parts)


def special_of(template: str, eos: str = END_OF_TEXT) -> tuple[str, ...]:
    """Return the special tokens a tokenizer must have for a template, beside bos."""
    return (*template_of(template).special, eos)


def stops_of(template: str, eos: str = END_OF_TEXT) -> tuple[str, ...]:
    """Return the special tokens that end an answer; the end of text always does."""
    return tuple(dict.fromkeys(eos if s == EOS else s for s in (*template_of(template).stop, EOS)))


def question_in(text: str, template: str) -> str:
    """Return what is asked in the text between two answers, the template's own words aside.

    text: without special tokens. A system message before it stays.
    """
    chosen = template_of(template)
    marks = re.compile("|".join(map(re.escape, (*chosen.special, BOS, EOS))))
    before, _, after = chosen.user.partition("{}")
    lead = marks.sub("", chosen.after + before)
    tail = marks.sub("", after + chosen.prompt)
    text = text.removesuffix(tail) if tail else text
    for start in (lead, marks.sub("", before)):
        if start and text.startswith(start):
            return text.removeprefix(start).strip()
    return text.strip()


class _Writer:
    """Collects parts; marks are divided into text and special tokens, contents never are."""

    def __init__(self, template: Template, bos: str, eos: str) -> None:
        self.parts: list[Part] = []
        self._own = {BOS: bos, EOS: eos}
        names = (*template.special, BOS, EOS, "{}")
        self._marks = re.compile("(" + "|".join(map(re.escape, names)) + ")")
        self._special = {*template.special, BOS, EOS}

    def add(self, marks: str, content: str = "", counts: bool = False) -> None:
        """Write marks with a content in the place of {}."""
        for piece in self._marks.split(marks):
            if piece in self._special:
                self._put(self._own.get(piece, piece), True, counts)
            else:
                self._put(content if piece == "{}" else piece, False, counts)

    def _put(self, text: str, special: bool, counts: bool) -> None:
        last = self.parts[-1] if self.parts else None
        if not text:
            return
        if last and not special and (last.special, last.counts) == (False, counts):
            self.parts[-1] = Part(last.text + text, False, counts)
        else:
            self.parts.append(Part(text, special, counts))


# What a foreign template holds (first) and must not hold (second); the first line that fits.
# A line asks for all the marks that the template writes, so that a relative of it is not taken
# for it: what it does besides (tools, images) our messages do not reach.
_SIGNS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("chatml", ("<|im_start|>", "<|im_end|>"), ("<|im_sep|>", "<|im_user|>")),
    ("llama3", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), ()),
    ("llama2", ("[INST] ", "[/INST]", "<<SYS>>", "<</SYS>>"), ("[SYSTEM_PROMPT]",)),
    ("mistral", ("[INST] ", " [/INST]"), ("[SYSTEM_PROMPT]", "<<SYS>>")),
    ("zephyr", ("<|user|>", "<|assistant|>", "eos_token"), ("<|end|>", "[gMASK]", "</s>")),
    ("zephyr", ("'<|' +", "'|>\\n'", "eos_token"), ("<|end|>",)),
    ("alpaca", ("### Instruction:", "### Response:"), ("<|EOT|>",)),
    ("plain", ("User:\\n", "Assistant:\\n"), ()),
)


def detect(jinja: str) -> str | None:
    """Return the name of the known template that a Jinja text writes, or None.

    Ours are known by their text, those of other models by the marks they write.
    """
    for template in TEMPLATES.values():
        if template.jinja == jinja:
            return template.name
    flat = jinja.replace("\n", "\\n")
    for name, holds, lacks in _SIGNS:
        if all(sign in flat for sign in holds) and not any(sign in flat for sign in lacks):
            return name
    return None
