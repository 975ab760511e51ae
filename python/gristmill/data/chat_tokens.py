"""Conversations as tokens: rendered by a template, the answers marked as what counts in the loss.

A document is the conversation up to the end of its last answer, closed by `<|endoftext|>`. Texts
between special tokens are encoded as a server encodes them, and an answer on its own, so that
training sees the ids of use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gristmill.artifacts import read_json, write_json
from gristmill.data import chat
from gristmill.data.chat_templates import TEMPLATES
from gristmill.data.conversation import messages_of
from gristmill.data.document import Document, is_chat
from gristmill.data.settings import ChatConfig
from gristmill.data.specials import EOS
from gristmill.data.tokenizer import Tokenizer
from gristmill.errors import ConfigError, DataError

FACTS = "chat.json"  # in the folder of the split
FROM_SCRATCH, WITHOUT = "chatml", "plain"  # with our own tokenizer; for a model that has none


@dataclass(frozen=True)
class Tokens:
    """One conversation: ids with the closing one, which of them count, and the text of the rest."""

    ids: list[int]
    counts: list[bool]
    text: str


@dataclass(frozen=True)
class Encoded:
    """Conversations as documents of rendered text, and those that did not fit."""

    documents: list[Document]
    tokens: list[Tokens]
    kept: list[int]  # positions among those given
    left_out: list[dict[str, Any]]
    shortened: int


def are_chats(documents: Sequence[Document]) -> bool:
    """Say whether the documents are conversations; raises DataError where only some are."""
    chats = [is_chat(document.path) for document in documents]
    if any(chats) and not all(chats):
        raise DataError(
            f"{sum(chats)} documents are conversations and {len(chats) - sum(chats)} are not; a "
            "run learns either: collect them in runs of their own, one from the model of the other"
        )
    return any(chats)


def choose_template(config: ChatConfig, given: Path | None) -> str:
    """Return the template's name: the one asked for, else the given model's, else the default."""
    if config.template != "auto":
        return config.template
    if given is None:
        return FROM_SCRATCH
    jinja = template_text(given)
    if jinja is None:
        return WITHOUT
    name = chat.detect(jinja)
    if name is None:
        raise ConfigError(
            f"{given} has a chat template that is none of the known ones; give split.chat.template:"
            f" {', '.join(TEMPLATES)}"
        )
    return name


def template_text(given: Path) -> str | None:
    """Return the chat template that a model's folder or GGUF holds, or None."""
    if given.is_file():
        from gristmill.data.gguf_file import open_gguf, value

        found = value(open_gguf(given), "tokenizer.chat_template")
        return found if isinstance(found, str) else None
    beside = given / "chat_template.jinja"
    if beside.is_file():
        return beside.read_text("utf-8")
    config = given / "tokenizer_config.json"
    found = read_json(config).get("chat_template") if config.is_file() else None
    if isinstance(found, list):  # several by name
        found = next((t.get("template") for t in found if t.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def jinja_of(template: str) -> str:
    """Return the Jinja text of a template for our tokenizers, which put nothing before a text."""
    return TEMPLATES[template].jinja.replace("bos_token", "''")


def write_template(folder: Path, template: str, tokenizer: Tokenizer) -> None:
    """Write the template into a saved model: transformers renders by it, and ends where it ends."""
    config = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", config | {"chat_template": jinja_of(template)})
    eos = tokenizer.names[EOS]
    stops = [tokenizer.marks[stop] for stop in chat.stops_of(template, eos)]
    generation = read_json(folder / "generation_config.json")
    ends = stops if len(stops) > 1 else stops[0]
    write_json(folder / "generation_config.json", generation | {"eos_token_id": ends})


def encode(
    messages: Sequence[chat.Message], template: str, tokenizer: Tokenizer, loss: str = "answers"
) -> Tokens:
    """Return the ids of a conversation; loss "all": every id but the first counts.

    Raises ConfigError where the tokenizer lacks a token of the template, DataError where the
    template cannot hold the messages.
    """
    parts = chat.render(messages, template, bos="", eos=tokenizer.names[EOS])
    last = max((i for i, part in enumerate(parts) if part.counts), default=-1)
    parts = parts[: last + 1] or parts
    ids: list[int] = []
    counts: list[bool] = []
    for part in parts:
        own = [_special(tokenizer, part.text, template)] if part.special else []
        own = own or tokenizer.encode(part.text)
        ids += own
        counts += [part.counts or loss == "all"] * len(own)
    text = chat.text_of(parts)
    if ids and ids[-1] == tokenizer.eos:
        text = text[: -len(parts[-1].text)]
    else:
        ids, counts = [*ids, tokenizer.eos], [*counts, loss == "all"]
    return Tokens(ids, counts, text)


def _special(tokenizer: Tokenizer, name: str, template: str) -> int:
    id = tokenizer.marks.get(name)
    if id is None:
        raise ConfigError(
            f"chat template {template!r} needs the token {name}, which the tokenizer has not; "
            f'give split.chat.template = "{WITHOUT}", which needs none'
        )
    return id


def encode_all(
    documents: Sequence[Document], template: str, tokenizer: Tokenizer, config: ChatConfig
) -> Encoded:
    """Encode conversations; one of more than max_tokens loses turns or is left out, and listed."""
    done = Encoded([], [], [], [], 0)
    shortened = 0
    for position, document in enumerate(documents):
        messages = messages_of(document)
        tokens = encode(messages, template, tokenizer, config.loss)
        size = len(tokens.ids)
        while config.max_tokens and len(tokens.ids) > config.max_tokens:
            fewer = _without_oldest(messages) if config.too_long == "drop turns" else None
            if fewer is None:
                break
            messages, tokens = fewer, encode(fewer, template, tokenizer, config.loss)
        if config.max_tokens and len(tokens.ids) > config.max_tokens:
            done.left_out.append({"path": document.path, "id": document.id, "tokens": size})
            continue
        if not any(tokens.counts):
            raise DataError(
                f"{document.source}/{document.path} has no answer to learn; add the clean step "
                '"pairs", which takes such conversations out'
            )
        shortened += len(tokens.ids) < size
        done.documents.append(replace(document, text=tokens.text))
        done.tokens.append(tokens)
        done.kept.append(position)
    return replace(done, shortened=shortened)


def _without_oldest(messages: Sequence[dict[str, str]]) -> list[dict[str, str]] | None:
    """Return the messages without their first question and all up to the second, or None."""
    asked = [i for i, m in enumerate(messages) if m["role"] == "user"]
    if len(asked) < 2:
        return None
    told = [m for m in messages[: asked[0]] if m["role"] == "system"]
    return [*told, *messages[asked[1] :]]
