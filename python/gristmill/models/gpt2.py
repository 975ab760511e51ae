"""GPT-2: LayerNorm, learned positions, attention with biases, GELU (Radford et al., 2019).

Parameter names equal Hugging Face's GPT2LMHeadModel; its Conv1D has weights (in, out). In bfloat16
the products take bfloat16 inputs; weights, their gradients and the residual stream stay float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np

from gristmill._tensor import Parameter, Tensor
from gristmill.models.causal import CausalLM, Ids, ModelConfig, eos_ids
from gristmill.nn.drop import Drop
from gristmill.nn.module import Conv1D, Embedding, LayerNorm, Linear, Module, ModuleList
from gristmill.ops.attention import attention
from gristmill.ops.gelu import gelu

REQUIRED = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "layer_norm_epsilon")
# Hugging Face's names of an activation, and ours; the first two are one function
ACTIVATIONS = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "none"}
END = 50256  # of the published vocabulary: begins and ends a text where config.json is silent


@dataclass(frozen=True)
class GPT2Config:
    """Shape of the model, with Hugging Face's names; the defaults are the smallest published."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.n_embd

    @property
    def num_hidden_layers(self) -> int:
        """Blocks."""
        return self.n_layer

    @property
    def num_attention_heads(self) -> int:
        """Heads of a block."""
        return self.n_head

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.n_embd // self.n_head

    @property
    def intermediate_size(self) -> int:
        """Width inside the MLP."""
        return self.n_inner or 4 * self.n_embd

    @property
    def max_position_embeddings(self) -> int:
        """Longest text."""
        return self.n_positions

    @property
    def eos_ids(self) -> list[int]:
        """Every token that ends a text."""
        return eos_ids(self)

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            **asdict(self), "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"],
            "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
            "reorder_and_upcast_attn": False, "add_cross_attention": False,
            "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
            "torch_dtype": "float32", "use_cache": True, "initializer_range": 0.02,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> GPT2Config:
        """From the content of config.json; raises ValueError for what this model cannot do."""
        if config.get("model_type") != "gpt2":
            raise ValueError(f"model_type {config.get('model_type')!r} given, allowed is 'gpt2'")
        missing = [key for key in REQUIRED if config.get(key) is None]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing; a gpt2 needs {', '.join(REQUIRED)}")
        for key, allowed in (
            ("scale_attn_weights", True),
            ("scale_attn_by_inverse_layer_idx", False),
            ("reorder_and_upcast_attn", False),
            ("add_cross_attention", False),
        ):
            if config.get(key, allowed) != allowed:
                raise ValueError(f"{key} = {config[key]!r} is not supported, only {allowed!r}")
        activation = config.get("activation_function") or "gelu_new"
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation_function = {activation!r} is not supported, only "
                f"{', '.join(map(repr, ACTIVATIONS))}"
            )
        if isinstance(config.get("bos_token_id"), list):
            raise ValueError(f"bos_token_id = {config['bos_token_id']} given, allowed is one id")
        known = {f.name for f in fields(cls)}
        end = END if config["vocab_size"] > END else None
        chosen: dict[str, Any] = {"bos_token_id": end, "eos_token_id": end}
        chosen |= {k: v for k, v in config.items() if k in known}
        # one name for one function, so that the runtime and GGUF, which knows no other, take it
        chosen["activation_function"] = "gelu" if activation == "gelu" else "gelu_new"
        if chosen.get("tie_word_embeddings") is None:
            chosen["tie_word_embeddings"] = True
        return cls(**chosen)


class Attention(Module):
    """Causal self-attention; queries, keys and values are one product."""

    def __init__(self, c: GPT2Config) -> None:
        self.c = c
        self.c_attn = Conv1D(3 * c.n_embd, c.n_embd)
        self.c_proj = Conv1D(c.n_embd, c.n_embd)

    def forward(self, x: Tensor, compute: str) -> Tensor:
        parts = self.c_attn(x, compute).split([self.c.n_embd] * 3)
        q, k, v = (part.heads(self.c.n_head) for part in parts)
        out: Tensor = self.c_proj(attention(q, k, v).reshape(*x.shape), compute, "float32")
        return out


class MLP(Module):
    """c_proj(gelu(c_fc(x)))."""

    def __init__(self, c: GPT2Config) -> None:
        self.approximate = ACTIVATIONS[c.activation_function]
        self.c_fc = Conv1D(c.intermediate_size, c.n_embd)
        self.c_proj = Conv1D(c.n_embd, c.intermediate_size)

    def forward(self, x: Tensor, compute: str) -> Tensor:
        wide = gelu(self.c_fc(x, compute), self.approximate)
        out: Tensor = self.c_proj(wide, compute, "float32")
        return out


class Block(Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, c: GPT2Config) -> None:
        self.ln_1 = LayerNorm(c.n_embd, c.layer_norm_epsilon)
        self.attn = Attention(c)
        self.ln_2 = LayerNorm(c.n_embd, c.layer_norm_epsilon)
        self.mlp = MLP(c)

    def forward(self, x: Tensor, compute: str, drop: Drop) -> Tensor:
        x = x + drop(self.attn(self.ln_1(x, compute), compute))
        out: Tensor = x + drop(self.mlp(self.ln_2(x, compute), compute))
        return out


class Transformer(Module):
    """Embeddings of tokens and positions, blocks, last norm."""

    def __init__(self, c: GPT2Config) -> None:
        self.wte = Embedding(c.vocab_size, c.n_embd)
        self.wpe = Embedding(c.n_positions, c.n_embd)
        self.h = ModuleList(Block(c) for _ in range(c.n_layer))
        self.ln_f = LayerNorm(c.n_embd, c.layer_norm_epsilon)


class GPT2(CausalLM):
    """A causal language model."""

    config_class = GPT2Config
    STACK = "transformer.h"
    ROLES: ClassVar[Mapping[str, str]] = {
        "wte": "embedding",
        "wpe": "position",
        "lm_head": "head",
        "c_proj": "residual",
    }
    BUFFERS = (".attn.bias", ".attn.masked_bias")  # the causal mask
    config: GPT2Config

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.transformer = Transformer(config)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.flatten()

    @property
    def head(self) -> Parameter:
        """The matrix (V, C) that makes logits."""
        tied = self.config.tie_word_embeddings
        return self.transformer.wte.weight if tied else self.lm_head.weight

    def embed(self, ids: Ids) -> Tensor:
        """ids (B, T) -> (B, T, C): of the token, plus of its position."""
        places = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
        out: Tensor = self.transformer.wte(ids) + self.transformer.wpe(places)
        return out

    def blocks(self) -> list[Module]:
        """The blocks from below."""
        return list(self.transformer.h)

    def last_norm(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        out: Tensor = self.transformer.ln_f(x, self.compute)
        return out

    def initial_std(self, role: str, fan_in: int) -> float:
        """As GPT-2 began: 0.02, positions 0.01, what is added to the stream / sqrt(2 layers)."""
        if role == "residual":
            return 0.02 / math.sqrt(2.0 * self.config.n_layer)
        return 0.01 if role == "position" else 0.02

    def fan_in(self, name: str, p: Parameter) -> int:
        """How many inputs one output of a matrix adds up: Conv1D's are (in, out)."""
        return p.shape[0] if name.split(".")[-2].startswith("c_") else p.shape[-1]

    @classmethod
    def adopt(cls, config: ModelConfig, state: dict[str, Any]) -> dict[str, Any]:
        """A foreign folder's tensors under our names: the published files leave `transformer.`
        out, and older ones hold the causal mask."""
        state = {
            name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": value
            for name, value in state.items()
        }
        return super().adopt(config, state)
