"""The tokenizer that came with a model, made fit for training: its special tokens found or added.

From a Hugging Face folder or a GGUF file. Ids stay as they are; a special token that no known name
is found for is appended behind them, and the model needs a row for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models

from gristmill.artifacts import read_json
from gristmill.data.gguf_file import open_gguf, value
from gristmill.data.pieces import ALIASES, PIECES, ignore_merges, pre_tokenizer
from gristmill.data.specials import EOS, SPECIALS, find
from gristmill.data.tokenizer import Tokenizer, eos_name
from gristmill.errors import ArtifactError, GristmillError

NEED = (
    f"a byte-level BPE is needed, as tokenizer.json or inside a GGUF, that cuts texts like one of "
    f"{', '.join(PIECES)}"
)
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # tokenizer.ggml.token_type


@dataclass(frozen=True)
class Adopted:
    """A tokenizer, how many ids it came with, and the special tokens that were appended."""

    tokenizer: Tokenizer
    given: int
    appended: list[str]


def adopt(path: Path, marks: Sequence[str] = ()) -> Adopted:
    """Return the tokenizer of a model's folder or GGUF; raises ArtifactError with what is wrong.

    marks: special tokens it must have beside SPECIALS, such as those of a chat template.
    """
    try:
        data, eos = _of_gguf(path) if path.is_file() else _of_folder(path)
        _mark(data, eos)
        inner = tokenizers.Tokenizer.from_str(json.dumps(data))
    except GristmillError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise ArtifactError(f"{path}: its tokenizer cannot be read ({error}); {NEED}") from None
    given = inner.get_vocab_size(with_added_tokens=True)
    vocabulary = inner.get_vocab(with_added_tokens=True)
    found = find(vocabulary, eos)
    if EOS not in found:
        raise ArtifactError(
            f"{path}: nothing says which token ends a text; name it as eos_token in "
            "tokenizer_config.json"
        )
    appended = [role for role in SPECIALS if role not in found]
    appended += [mark for mark in marks if mark not in vocabulary]
    inner.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in appended])
    try:
        return Adopted(Tokenizer(inner, eos), given, appended)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}; {NEED}") from None


def _of_folder(folder: Path) -> tuple[dict[str, Any], str | None]:
    """Return the content of tokenizer.json, and the name of the token that ends a text."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        names = ("tokenizer.model", "vocab.json", "merges.txt")
        other = [name for name in names if (folder / name).exists()]
        beside = f", only {', '.join(other)}" if other else ""
        raise ArtifactError(
            f"{folder} has no tokenizer.json{beside}; {NEED}: put the model's own there "
            "(transformers writes it: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER))"
        )
    data = read_json(file)
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise ArtifactError(f"{file} is no tokenizer.json; {NEED}")
    return data, eos_name(folder) or _eos_by_id(folder, data)


def _eos_by_id(folder: Path, data: dict[str, Any]) -> str | None:
    """Return the token whose id config.json gives as the end of a text."""
    file = folder / "config.json"
    id = read_json(file).get("eos_token_id") if file.is_file() else None
    id = id[0] if isinstance(id, list) and id else id
    by_id = {token["id"]: token["content"] for token in data.get("added_tokens") or []}
    if id in by_id:
        return str(by_id[id])
    vocabulary = data["model"].get("vocab") or {}
    return next((text for text, i in vocabulary.items() if i == id), None)


def _of_gguf(path: Path) -> tuple[dict[str, Any], str | None]:
    """Return the same from the keys tokenizer.ggml.* of a GGUF."""
    reader = open_gguf(path)
    kind = value(reader, "tokenizer.ggml.model")
    pre = value(reader, "tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or ALIASES.get(pre, pre) not in PIECES:
        raise ArtifactError(f"{path} has a tokenizer of kind {kind!r}, pieces {pre!r}; {NEED}")
    tokens = value(reader, "tokenizer.ggml.tokens", [])
    types = value(reader, "tokenizer.ggml.token_type", [1] * len(tokens))
    used = max((i + 1 for i, type in enumerate(types) if type != UNUSED), default=0)
    merges = [tuple(merge.split(" ")) for merge in value(reader, "tokenizer.ggml.merges", [])]
    inner = tokenizers.Tokenizer(
        models.BPE(vocab={text: id for id, text in enumerate(tokens[:used])}, merges=merges)
    )
    inner.decoder = decoders.ByteLevel()
    for id in range(used):
        if types[id] in (CONTROL, USER_DEFINED):
            control = types[id] == CONTROL
            inner.add_tokens([AddedToken(tokens[id], special=control, normalized=False)])
    eos = value(reader, "tokenizer.ggml.eos_token_id")
    data: dict[str, Any] = json.loads(inner.to_str())
    data["pre_tokenizer"], data["model"]["ignore_merges"] = pre_tokenizer(pre), ignore_merges(pre)
    return data, None if eos is None else tokens[eos]


def _mark(data: dict[str, Any], eos: str | None) -> None:
    """Make the tokens we give a meaning special: some models list theirs as plain additions.

    Nothing is put before a text any more: documents are told apart by the token that ends them.
    """
    data["post_processor"] = None
    added = data.get("added_tokens") or []
    names = find({token["content"] for token in added}, eos).values()
    for token in added:
        if token["content"] in names:
            token["special"] = True
