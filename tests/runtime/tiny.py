"""Tiny random llamas for tests: a Hugging Face folder and its GGUF, without the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIALS = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>")
TEXT = [
    "def add(left, right):\n    return left + right\n\n\n",
    "class Node:\n    def __init__(self, value):\n        self.value = value\n",
    "import os\nfor name in sorted(os.listdir('.')):\n    print(name, len(name), 12345)\n",
    "it's they'll we've I'm you're he'd can't   \n\n\t\tif x == 1:  # naïve café 日本語 中文\n",
]


@dataclass(frozen=True)
class Shape:
    """Sizes of a tiny llama; the defaults are awkward on purpose (GQA 4/2, odd vocabulary)."""

    vocab: int = 331
    hidden: int = 32
    intermediate: int = 56
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8
    context: int = 128
    tied: bool = True


def train_tokenizer(vocab: int) -> Tokenizer:
    """Byte-level BPE with the special tokens at the end of `vocab` ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in SPECIALS])
    return tokenizer


def random_tensors(shape: Shape, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Weights under Hugging Face's names, standard deviation 0.08, norms around one."""
    rng = np.random.default_rng(seed)

    def normal(*size: int) -> npt.NDArray[np.float32]:
        return (rng.standard_normal(size) * 0.08).astype(np.float32)

    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    tensors = {"model.embed_tokens.weight": normal(shape.vocab, shape.hidden) * 4}
    for i in range(shape.layers):
        at = f"model.layers.{i}."
        tensors[at + "input_layernorm.weight"] = 1 + normal(shape.hidden)
        tensors[at + "self_attn.q_proj.weight"] = normal(q, shape.hidden) * 4
        tensors[at + "self_attn.k_proj.weight"] = normal(kv, shape.hidden) * 4
        tensors[at + "self_attn.v_proj.weight"] = normal(kv, shape.hidden) * 3
        tensors[at + "self_attn.o_proj.weight"] = normal(shape.hidden, q) * 3
        tensors[at + "post_attention_layernorm.weight"] = 1 + normal(shape.hidden)
        tensors[at + "mlp.gate_proj.weight"] = normal(shape.intermediate, shape.hidden) * 3
        tensors[at + "mlp.up_proj.weight"] = normal(shape.intermediate, shape.hidden) * 3
        tensors[at + "mlp.down_proj.weight"] = normal(shape.hidden, shape.intermediate) * 3
    tensors["model.norm.weight"] = 1 + normal(shape.hidden)
    if not shape.tied:
        tensors["lm_head.weight"] = normal(shape.vocab, shape.hidden) * 4
    return tensors


def hf_config(shape: Shape, eos: int | None) -> dict[str, Any]:
    """config.json of a Hugging Face llama folder."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": shape.context,
        "tie_word_embeddings": shape.tied,
        "eos_token_id": eos,
        "torch_dtype": "float32",
    }


def write_folder(folder: Path, shape: Shape | None = None, seed: int = 7) -> Path:
    """A Hugging Face folder with a random model and a trained tokenizer; returns `folder`."""
    from safetensors.numpy import save_file

    shape = shape or Shape()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(shape.vocab)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = hf_config(shape, tokenizer.token_to_id("<|endoftext|>"))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(random_tensors(shape, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_model(
    folder: Path, shape: Shape | None = None, seed: int = 7, dtype: str = "f32", **extra: Any
) -> Path:
    """The folder of `write_folder` and its GGUF; returns the GGUF's path."""
    from gristmill.checkpoint.gguf import write_gguf

    path = folder / "model.gguf"
    write_gguf(write_folder(folder, shape, seed), path, dtype=dtype, extra=extra.get("extra"))
    return path
