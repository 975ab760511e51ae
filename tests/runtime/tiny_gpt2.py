"""Tiny random gpt2 models for tests: a Hugging Face folder and its GGUF, without the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tiny import train_tokenizer


@dataclass(frozen=True)
class Gpt2Shape:
    """Sizes of a tiny gpt2, with Hugging Face's names; awkward on purpose."""

    vocab: int = 331
    n_embd: int = 36
    n_layer: int = 2
    n_head: int = 4
    n_inner: int = 52
    n_positions: int = 128


def random_tensors(shape: Gpt2Shape, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Weights under Hugging Face's names; matrices of the layers are (in, out)."""
    rng = np.random.default_rng(seed)
    C, F = shape.n_embd, shape.n_inner

    def normal(*size: int) -> npt.NDArray[np.float32]:
        return (rng.standard_normal(size) * 0.25).astype(np.float32)

    tensors = {
        "transformer.wte.weight": normal(shape.vocab, C),
        "transformer.wpe.weight": normal(shape.n_positions, C),
    }
    for i in range(shape.n_layer):
        at = f"transformer.h.{i}."
        for name, rows, columns in (
            ("attn.c_attn", C, 3 * C),
            ("attn.c_proj", C, C),
            ("mlp.c_fc", C, F),
            ("mlp.c_proj", F, C),
        ):
            tensors[f"{at}{name}.weight"] = normal(rows, columns)
            tensors[f"{at}{name}.bias"] = normal(columns)
        for name in ("ln_1", "ln_2"):
            tensors[f"{at}{name}.weight"] = 1 + normal(C)
            tensors[f"{at}{name}.bias"] = normal(C)
    tensors["transformer.ln_f.weight"] = 1 + normal(C)
    tensors["transformer.ln_f.bias"] = normal(C)
    return tensors


def hf_config(shape: Gpt2Shape, eos: int | None) -> dict[str, Any]:
    """config.json of a Hugging Face gpt2 folder."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": shape.vocab,
        "n_embd": shape.n_embd,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "n_inner": shape.n_inner,
        "n_positions": shape.n_positions,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": eos,
        "eos_token_id": eos,
        "torch_dtype": "float32",
    }


def twin(
    weights: dict[str, npt.NDArray[np.float32]], shape: Gpt2Shape, ids: list[int]
) -> npt.NDArray[np.float64]:
    """Logits (T, V) of a gpt2 in float64, as Radford et al. 2019 and Hugging Face define it."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    T, D = len(ids), shape.n_embd // shape.n_head

    def norm(x: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
        return x * w[name + ".weight"] + w[name + ".bias"]

    def conv(x: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        return x @ w[name + ".weight"] + w[name + ".bias"]

    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][:T]  # (T, C)
    for i in range(shape.n_layer):
        at = f"transformer.h.{i}."
        qkv = conv(norm(x, at + "ln_1"), at + "attn.c_attn").reshape(T, 3, shape.n_head, D)
        q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]  # (T, H, D)
        scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(D)
        scores[:, np.triu(np.ones((T, T), bool), 1)] = -np.inf
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + conv(np.einsum("hts,shd->thd", p, v).reshape(T, -1), at + "attn.c_proj")
        h = conv(norm(x, at + "ln_2"), at + "mlp.c_fc")
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        x = x + conv(h, at + "mlp.c_proj")
    return norm(x, "transformer.ln_f") @ w["transformer.wte.weight"].T


def write_folder(folder: Path, shape: Gpt2Shape | None = None, seed: int = 7) -> Path:
    """A Hugging Face folder with a random model and a trained tokenizer; returns `folder`."""
    from safetensors.numpy import save_file

    shape = shape or Gpt2Shape()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(shape.vocab)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = hf_config(shape, tokenizer.token_to_id("<|endoftext|>"))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(random_tensors(shape, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_model(
    folder: Path, shape: Gpt2Shape | None = None, seed: int = 7, dtype: str = "f32"
) -> Path:
    """The folder of `write_folder` and its GGUF; returns the GGUF's path."""
    from gristmill.checkpoint.gguf import write_gguf

    path = folder / "model.gguf"
    write_gguf(write_folder(folder, shape, seed), path, dtype=dtype)
    return path
