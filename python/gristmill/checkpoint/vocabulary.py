"""A `tokenizer.json` as GGUF's keys tokenizer.ggml.* can say it, or the reason why they cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.data.pieces import name_of
from gristmill.errors import DataError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # tokenizer.ggml.token_type


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id as GGUF wants them, merges as 'left right', ids by name of special tokens.

    pre: name of the rule that cuts a text into pieces; bos: id put before every text, or None.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    special: dict[str, int]
    pre: str = "gpt-2"
    bos: int | None = None


def read_vocabulary(path: Path, vocab_size: int) -> Vocabulary:
    """Tokens, merges and special ids of a byte-level BPE `tokenizer.json`, `vocab_size` in all.

    Raises DataError where GGUF has no word for what the tokenizer does.
    """
    data = read_json(path)
    model = data.get("model") or {}
    _check(data, model, path)
    try:
        pre = name_of(data.get("pre_tokenizer"), bool(model.get("ignore_merges")))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    added = {int(t["id"]): t for t in data.get("added_tokens") or []}
    by_id = {int(i): text for text, i in model["vocab"].items()}
    by_id.update({i: str(t["content"]) for i, t in added.items()})
    if not by_id or max(by_id) >= vocab_size:
        raise DataError(f"{path} has token id {max(by_id, default=-1)}, vocab_size is {vocab_size}")
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(vocab_size)]
    types = [NORMAL if i in by_id else UNUSED for i in range(vocab_size)]
    for i, token in added.items():
        types[i] = CONTROL if token.get("special") else USER_DEFINED
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    special = {str(t["content"]): i for i, t in added.items()}
    return Vocabulary(tokens, types, merges, special, pre, _bos(data, special, path))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object a file holds; raises DataError."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} holds {type(data).__name__}, expected an object")
    return data


def _check(data: Mapping[str, Any], model: Mapping[str, Any], path: Path) -> None:
    added = data.get("added_tokens") or []
    spaced = [t["content"] for t in added if t.get("lstrip") or t.get("rstrip")]
    single = [t["content"] for t in added if t.get("single_word")]
    wrong = [
        (model.get("type") != "BPE", "model type is not BPE"),
        (bool(model.get("byte_fallback")), "byte_fallback is on"),
        (model.get("dropout") is not None, "dropout is set"),
        (bool(model.get("continuing_subword_prefix")), "continuing_subword_prefix is set"),
        (bool(model.get("end_of_word_suffix")), "end_of_word_suffix is set"),
        (data.get("normalizer") is not None, "a normalizer is set"),
        (bool(spaced), f"added tokens swallow spaces: {spaced[:3]}"),
        (bool(single), f"added tokens are whole words only: {single[:3]}"),
    ]
    reasons = [text for bad, text in wrong if bad]
    if reasons:
        raise DataError(
            f"{path} is no GPT-2 byte-level BPE ({'; '.join(reasons)}): GGUF export needs one"
        )


def _bos(data: Mapping[str, Any], special: Mapping[str, int], path: Path) -> int | None:
    """Return the id that the post-processor puts before a text; DataError where it does more."""
    post = data.get("post_processor")
    parts = post.get("processors") or [post] if post else []
    before: list[str] = []
    for part in parts:
        if part.get("type") == "ByteLevel":  # moves offsets only
            continue
        template = part.get("single") if part.get("type") == "TemplateProcessing" else None
        texts = [i for i, item in enumerate(template or []) if "Sequence" in item]
        if template is None or texts != [len(template) - 1]:
            raise DataError(
                f"{path}: post-processor {part.get('type')} does more than put a token before a "
                "text, which GGUF's add_bos_token cannot say; remove it"
            )
        before += [str(item["SpecialToken"]["id"]) for item in template[:-1]]
    if len(before) > 1 or any(name not in special for name in before):
        raise DataError(f"{path}: {before} is put before a text, one special token is allowed")
    return special[before[0]] if before else None
