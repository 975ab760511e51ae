"""What GGUF calls the parts of each architecture, and how it lays their matrices out.

GGUF `llama` rotates neighbouring pairs where Hugging Face rotates halves: rows of q and k are
permuted per head. GGUF `gpt2` keeps every matrix as (out, in), Hugging Face's Conv1D as (in, out).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import DataError

Tensors = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Names:
    """Hugging Face's names of modules to GGUF's, and which have a bias beside their weight."""

    outer: Mapping[str, str]  # before the layers
    last: Mapping[str, str]  # behind them
    stack: str
    block: Mapping[str, str]
    bias: frozenset[str] = frozenset()  # by GGUF's name


LLAMA = Names(
    outer={"model.embed_tokens": "token_embd"},
    last={"model.norm": "output_norm"},
    stack="model.layers",
    block={
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    },
)
GPT2 = Names(
    outer={"transformer.wte": "token_embd", "transformer.wpe": "position_embd"},
    last={"transformer.ln_f": "output_norm"},
    stack="transformer.h",
    block={
        "ln_1": "attn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "ln_2": "ffn_norm",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    },
    bias=frozenset(
        ["output_norm", "attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down"]
    ),
)
NAMES = {"llama": LLAMA, "gpt2": GPT2}


def permute(weight: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Rows (heads * head_dim, ...) from halves (x0, .., y0, ..) to pairs (x0, y0, ..) per head."""
    head_dim = weight.shape[0] // heads
    split = weight.reshape(heads, 2, head_dim // 2, *weight.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(weight.shape)


def gguf_tensors(tensors: Mapping[str, npt.NDArray[np.float32]], config: Any, kind: str) -> Tensors:
    """Tensors under GGUF names in file order, laid out as GGUF has them.

    Raises DataError naming what is missing or unknown.
    """
    names = full_names(NAMES[kind], config.num_hidden_layers, config.tie_word_embeddings)
    missing = sorted(set(names) - set(tensors))
    unknown = sorted(set(tensors) - set(names) - {"lm_head.weight"})
    if missing or unknown:
        raise DataError(
            f"the weights do not match config.json: missing {missing[:3]}, unknown {unknown[:3]}"
        )
    turn = turn_of(kind, config)
    return {theirs: turn(theirs, tensors[ours]) for ours, theirs in names.items()}


def full_names(names: Names, layers: int, tied: bool) -> dict[str, str]:
    """Every tensor of a model: Hugging Face's name to GGUF's."""
    modules = dict(names.outer)
    for i in range(layers):
        modules |= {f"{names.stack}.{i}.{a}": f"blk.{i}.{b}" for a, b in names.block.items()}
    modules |= names.last
    if not tied:
        modules["lm_head"] = "output"
    full = {}
    for ours, theirs in modules.items():
        full[f"{ours}.weight"] = f"{theirs}.weight"
        if theirs.split(".")[-1] in names.bias:
            full[f"{ours}.bias"] = f"{theirs}.bias"
    return full


def turn_of(kind: str, config: Any) -> Callable[[str, Any], Any]:
    """Return what lays a tensor, given by GGUF's name, out as GGUF has it."""
    return _llama_turn(config) if kind == "llama" else _gpt2_turn


def _llama_turn(config: Any) -> Callable[[str, Any], Any]:
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}

    def turn(name: str, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        part = name.split(".")[-2]
        return permute(weight, heads[part]) if part in heads else weight

    return turn


def _gpt2_turn(name: str, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    inner = name.startswith("blk.") and weight.ndim == 2
    return np.ascontiguousarray(weight.T) if inner else weight
