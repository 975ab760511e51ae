"""How a model file wants a conversation written: its template, as ids of its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gristmill.data import chat
from gristmill.data.chat_templates import TEMPLATES
from gristmill.errors import ConfigError

from .runtime import ModelLike

NAME_KEY = "gristmill.chat.template"  # name of one of ours
JINJA_KEY = "tokenizer.chat_template"  # what llama.cpp and others read; never run here


@dataclass(frozen=True)
class ChatFormat:
    """A template with the ids that its special tokens have in this model's tokenizer."""

    template: str
    special: dict[str, int]
    bos: str
    eos: str
    stops: frozenset[int]  # ids that end an answer

    @property
    def jinja(self) -> str:
        """The template as Jinja, for clients that render it themselves."""
        return chat.template_of(self.template).jinja

    def ids(self, model: ModelLike, messages: Sequence[chat.Message]) -> list[int]:
        """Prompt ids of a conversation up to where the answer begins. Raises DataError.

        As in training: a special token inside a message stays plain text.
        """
        ids: list[int] = []
        for part in chat.render(messages, self.template, True, bos=self.bos, eos=self.eos):
            if part.special:
                ids.append(self.special[part.text])
            else:
                ids += model.tokenize(part.text.encode("utf-8"), False)
        return ids


def chat_format(model: ModelLike, given: str | None = None) -> ChatFormat | None:
    """The format of template `given`, else of the one the file names or holds; None without one.

    Raises ConfigError where `given` does not exist or needs tokens this tokenizer has not.
    """
    name = given or _of_file(model)
    if name is None:
        return None
    chat.template_of(name)
    bos, eos = (_spelled(model, token) for token in (model.bos_id, model.eos_id))
    special: dict[str, int] = {}
    for text in dict.fromkeys((bos, *chat.special_of(name, eos))):
        ids = model.tokenize(text.encode("utf-8"), True)
        if not text:
            continue
        if len(ids) != 1:
            if given is None:
                return None
            raise ConfigError(
                f"chat template {name!r} needs the token {text!r}, which this model has not; "
                f"allowed: {', '.join(TEMPLATES)}"
            )
        special[text] = ids[0]
    stops = (special[text] for text in chat.stops_of(name, eos) if text)
    return ChatFormat(name, special, bos, eos, frozenset(stops))


def _of_file(model: ModelLike) -> str | None:
    named = model.metadata.get(NAME_KEY)
    if named in TEMPLATES:
        return str(named)
    jinja = model.metadata.get(JINJA_KEY)
    return chat.detect(jinja) if isinstance(jinja, str) else None


def _spelled(model: ModelLike, token: int) -> str:
    return model.token_bytes(token).decode("utf-8", "replace") if token >= 0 else ""
