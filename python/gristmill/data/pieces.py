r"""How a byte-level BPE cuts a text into pieces before it merges, by the name that GGUF gives it.

A name stands for everything that is not in vocabulary and merges: the pre-tokenizer, and whether a
piece that is itself a token is taken whole (`ignore_merges`). The C++ tokenizer implements the same
names; it is compared with the library `tokenizers` for each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.errors import DataError

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3, QWEN2 = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in (r"\p{N}{1,3}", r"\p{N}")
)


@dataclass(frozen=True)
class Pieces:
    """steps: what happens to a text, one after the other; a regular expression cuts it out.

    bos_when_silent: a file that does not say whether a text begins with bos means yes.
    """

    steps: tuple[str, ...]
    ignore_merges: bool = False
    bos_when_silent: bool = False


PIECES = {
    "gpt-2": Pieces((GPT2,)),
    "llama-bpe": Pieces((LLAMA3,), ignore_merges=True, bos_when_silent=True),
    "qwen2": Pieces((QWEN2,)),
    "smollm": Pieces((r"\p{N}", GPT2)),
}
ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "starcoder": "smollm"}


def name_of(pre_tokenizer: Any, ignore_merges: bool = False) -> str:
    """Return GGUF's name of a tokenizer.json's pre-tokenizer, known by what it does.

    Raises DataError that shows what was found where it has no name here.
    """
    steps = _steps(pre_tokenizer)
    found = [name for name, pieces in PIECES.items() if pieces.steps == steps]
    if not found:
        raise DataError(
            f"pre-tokenizer {_shown(pre_tokenizer, steps)} has no name in GGUF that is known here; "
            f"allowed are those of {', '.join(PIECES)} (gristmill/data/pieces.py has the "
            "expressions)"
        )
    wanted = PIECES[found[0]].ignore_merges
    if ignore_merges != wanted:
        raise DataError(
            f"the pre-tokenizer is that of {found[0]}, which has ignore_merges {wanted}, and the "
            f"model has {ignore_merges}: GGUF cannot say so"
        )
    return found[0]


def pre_tokenizer(name: str) -> dict[str, Any]:
    """Return the pre_tokenizer of a tokenizer.json; raises DataError for an unknown name."""
    name = ALIASES.get(name, name)
    if name not in PIECES:
        raise DataError(f"pre-tokenizer {name!r} given, known are {', '.join(PIECES)}")
    *first, last = PIECES[name].steps
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    parts = [_split(step) for step in first]
    if last == GPT2:
        parts.append({**byte_level, "use_regex": True})
    else:
        parts += [_split(last), {**byte_level, "use_regex": False}]
    return parts[0] if len(parts) == 1 else {"type": "Sequence", "pretokenizers": parts}


def ignore_merges(name: str) -> bool:
    """Whether a piece that is a token is taken whole, without merging."""
    return PIECES[ALIASES.get(name, name)].ignore_merges


def adds_bos(metadata: Mapping[str, Any]) -> bool:
    """Whether a GGUF's text begins with bos: what it says, else what its pieces imply."""
    name = str(metadata.get("tokenizer.ggml.pre"))
    silent = PIECES.get(ALIASES.get(name, name), Pieces(())).bos_when_silent
    return bool(metadata.get("tokenizer.ggml.add_bos_token", silent))


def _split(expression: str) -> dict[str, Any]:
    if expression == r"\p{N}":
        return {"type": "Digits", "individual_digits": True}
    pattern = {"Regex": expression}
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def _steps(pre: Any) -> tuple[str, ...]:
    """Return the expressions of a pre-tokenizer in order; () where it does something else."""
    pre = pre if isinstance(pre, dict) else {}
    parts = pre.get("pretokenizers") or [] if pre.get("type") == "Sequence" else [pre]
    steps: list[str] = []
    for i, part in enumerate(parts):
        kind, last = part.get("type"), i == len(parts) - 1
        isolated = part.get("behavior") == "Isolated" and not part.get("invert")
        if kind == "Digits" and part.get("individual_digits"):
            steps.append(r"\p{N}")
        elif kind == "Split" and isolated and "Regex" in part["pattern"]:
            steps.append(str(part["pattern"]["Regex"]))
        elif kind == "ByteLevel" and last and not part.get("add_prefix_space"):
            steps += [GPT2] if part.get("use_regex", True) else []
            return tuple(steps)
        else:
            return ()
    return ()  # without ByteLevel the tokens are not bytes


def _shown(pre: Any, steps: tuple[str, ...]) -> str:
    if steps:
        return " then ".join(map(repr, steps))
    if isinstance(pre, dict) and pre.get("add_prefix_space"):
        return "with add_prefix_space on"
    return json.dumps(pre, ensure_ascii=False)
