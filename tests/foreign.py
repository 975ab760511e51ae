"""Models as other people save them: a tiny llama with a tokenizer of foreign names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tiny_llama import small
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

import gristmill as gm
from gristmill.models import GPT2, GPT2Config

TEXTS = ["def get_one(self):\n    return self.one\n" * 9, "class Two:\n    value = 2\n" * 9]
STAR = ("<eos>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")


def foreign_tokenizer(names: tuple[str, ...] = STAR, size: int = 280) -> tokenizers.Tokenizer:
    """A byte-level BPE whose special tokens come last and are called `names`."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    inner.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    return inner


def foreign_folder(
    folder: Path, names: tuple[str, ...] = STAR, rows: int | None = None, **shape: Any
) -> Path:
    """A Hugging Face folder: weights, config.json, tokenizer.json, tokenizer_config.json."""
    inner = foreign_tokenizer(names)
    size, eos = inner.get_vocab_size(with_added_tokens=True), inner.token_to_id(names[0])
    small(**{"vocab_size": rows or size, "eos_token_id": eos, **shape}).save_pretrained(folder)
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": names[0]}))
    return folder


def foreign_gpt2(folder: Path, names: tuple[str, ...] = STAR) -> Path:
    """The same of kind gpt2, for 64 positions."""
    foreign_folder(folder, names)
    tokenizer = {n: (folder / n).read_bytes() for n in ("tokenizer.json", "tokenizer_config.json")}
    config = json.loads((folder / "config.json").read_text())
    gm.manual_seed(7)
    GPT2(
        GPT2Config(
            vocab_size=config["vocab_size"], n_positions=64, n_embd=32, n_layer=2, n_head=2,
            eos_token_id=config["eos_token_id"],
        )
    ).save_pretrained(folder)  # fmt: skip
    for name, data in tokenizer.items():
        (folder / name).write_bytes(data)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Overwrite some keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
