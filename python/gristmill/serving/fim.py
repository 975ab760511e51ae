"""Fill-in-the-middle prompts of a model file: its sentinel ids, its order, what fits its context.

The order is PSM, or SPM where the file asks for it by `gristmill.fim.order` (see data/fim.py). The
budget for `/infill` is llama.cpp's: of a batch three quarters prefix, one quarter suffix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.data.fim import FimTokens
from gristmill.data.pieces import adds_bos

from .runtime import ModelLike

SNIPPET = (
    "\n\n--- snippet ---\n\n"  # llama.cpp's separator between extra chunks without a sep token
)
ORDER = "gristmill.fim.order"  # in a file: "spm" or "psm", which it is without the key
BATCH = 2048  # llama.cpp's default n_batch: the most ids of prefix and suffix together


@dataclass(frozen=True)
class FimPrompt:
    """Prompt ids and what had to be cut from prefix, suffix and extra chunks (ids)."""

    ids: list[int]
    cut_prefix: int
    cut_suffix: int
    cut_extra: int

    @property
    def truncated(self) -> bool:
        """Whether anything was cut."""
        return bool(self.cut_prefix or self.cut_suffix or self.cut_extra)


def fim_tokens(metadata: Mapping[str, Any]) -> FimTokens | None:
    """The sentinel ids and their order in GGUF metadata, or None where the model has none."""
    found = [metadata.get(f"tokenizer.ggml.fim_{part}_token_id") for part in ("pre", "suf", "mid")]
    if any(value is None for value in found):
        return None
    prefix, suffix, middle = (int(str(value)) for value in found)
    return FimTokens(prefix, suffix, middle, metadata.get(ORDER) == "spm")


def control_ids(model: ModelLike) -> frozenset[int]:
    """Ids that end a completion: end of text and every fill-in-the-middle sentinel."""
    keys = ("pre", "suf", "mid", "pad", "rep", "sep")
    named = (model.metadata.get(f"tokenizer.ggml.fim_{part}_token_id") for part in keys)
    ids = {int(str(value)) for value in named if value is not None}
    if model.eos_id >= 0:
        ids.add(model.eos_id)
    return frozenset(ids)


def with_bos(model: ModelLike, ids: list[int]) -> list[int]:
    """`ids` with the begin-of-text id in front where the model asks for it."""
    if adds_bos(model.metadata) and model.bos_id >= 0:
        return [model.bos_id, *ids]
    return ids


def completion_ids(model: ModelLike, tokens: FimTokens, prefix: str, suffix: str) -> list[int]:
    """Prompt of the whole prefix and suffix; sentinels inside the texts stay plain text."""
    before = model.tokenize(prefix.encode("utf-8"), False)
    after = model.tokenize(suffix.encode("utf-8"), False)
    return with_bos(model, tokens.prompt(before, after))


def extra_ids(model: ModelLike, extra: Sequence[str]) -> list[int]:
    """Ids of the extra chunks (other files), each behind llama.cpp's snippet line."""
    separator = model.tokenize(SNIPPET.encode("utf-8"), False)
    ids: list[int] = []
    for text in extra:
        ids += separator
        ids += model.tokenize(text.encode("utf-8"), False)
    return ids


def infill_ids(
    model: ModelLike,
    tokens: FimTokens,
    prefix: str,
    suffix: str,
    prompt: str,
    extra: Sequence[str],
    *,
    n_ctx: int,
    n_predict: int,
) -> FimPrompt:
    """Prompt cut to the context: end of the prefix, beginning of the suffix, end of the extra.

    `n_predict` ids stay free for the answer; where it is negative (no end), a quarter.
    """
    before = model.tokenize(prefix.encode("utf-8"), False)
    after = model.tokenize(suffix.encode("utf-8"), False)
    typed = model.tokenize(prompt.encode("utf-8"), False)
    extras = extra_ids(model, extra)
    free = n_predict if n_predict >= 0 else n_ctx // 4
    overhead = 3 + len(with_bos(model, []))
    room = max(n_ctx - max(min(free, n_ctx // 2), 1) - overhead, 0)
    batch = min(BATCH, room)
    n_typed = min(len(typed), batch)
    n_suffix = min(len(after), max(0, batch // 4 - n_typed))
    n_prefix = min(len(before), 3 * (batch // 4), batch - n_suffix - n_typed)
    n_extra = min(len(extras), room - n_prefix - n_suffix - n_typed)
    ids = with_bos(model, extras[len(extras) - n_extra :])
    kept = [*before[len(before) - n_prefix :], *typed[len(typed) - n_typed :]]
    ids += tokens.prompt(kept, after[:n_suffix])
    cut_prefix = len(before) - n_prefix + len(typed) - n_typed
    return FimPrompt(ids, cut_prefix, len(after) - n_suffix, len(extras) - n_extra)
