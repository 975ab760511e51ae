"""Special tokens by what they are for, and the names under which known models have them."""

from __future__ import annotations

from collections.abc import Container

EOS = "<|endoftext|>"
FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX = "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"
FIM_PAD = "<|fim_pad|>"
SPECIALS = (EOS, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX, FIM_PAD)  # Qwen's names stand for the roles

# the first name that a vocabulary has is taken; those of fill-in-the-middle as llama.cpp finds them
KNOWN = {
    EOS: (EOS, "<|end_of_text|>", "</s>", "<eos>", "<｜end▁of▁sentence｜>"),
    FIM_PREFIX: (FIM_PREFIX, "<fim_prefix>", "<fim-prefix>", "<｜fim▁begin｜>", "<|code_prefix|>",
                 "<|prefix|>"),
    FIM_MIDDLE: (FIM_MIDDLE, "<fim_middle>", "<fim-middle>", "<｜fim▁end｜>", "<|code_middle|>",
                 "<|middle|>"),
    FIM_SUFFIX: (FIM_SUFFIX, "<fim_suffix>", "<fim-suffix>", "<｜fim▁hole｜>", "<|code_suffix|>",
                 "<|suffix|>"),
    FIM_PAD: (FIM_PAD, "<fim_pad>", "<fim-pad>"),
}  # fmt: skip


def find(vocabulary: Container[str], eos: str | None = None) -> dict[str, str]:
    """Return {role: name} of those of SPECIALS that a vocabulary has; `eos` wins where given."""
    candidates = KNOWN | ({EOS: (eos, *KNOWN[EOS])} if eos else {})
    found = {}
    for role, names in candidates.items():
        name = next((name for name in names if name in vocabulary), None)
        if name is not None:
            found[role] = name
    return found
