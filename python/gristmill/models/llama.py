"""Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU (Touvron et al., 2023).

Parameter names equal Hugging Face's LlamaForCausalLM. In bfloat16 the products take bfloat16
inputs; weights, gradients of weights and the residual stream stay float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from gristmill._tensor import Parameter, Tensor, adjacent, empty
from gristmill.backend import _C
from gristmill.models.causal import CausalLM, Ids, eos_ids
from gristmill.nn.drop import Drop
from gristmill.nn.module import Embedding, Linear, Module, ModuleList, RMSNorm
from gristmill.ops.attention import attention
from gristmill.ops.matmul import linear
from gristmill.ops.rope import rope
from gristmill.ops.swiglu import swiglu

# without a value in config.json transformers takes its own default: none is assumed here
REQUIRED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "rms_norm_eps", "max_position_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class LlamaConfig:
    """Shape of the model, with Hugging Face's names."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    head_dim: int = 64
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    max_position_embeddings: int = 1024
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self) -> None:
        h, g = self.num_attention_heads, self.num_key_value_heads
        if h % g:
            raise ValueError(
                f"num_attention_heads {h} is not a multiple of num_key_value_heads {g}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rotary positions turn pairs")

    @property
    def eos_ids(self) -> list[int]:
        """Every token that ends a text."""
        return eos_ids(self)

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            **asdict(self), "model_type": "llama", "architectures": ["LlamaForCausalLM"],
            "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
            "attention_dropout": 0.0,
            "torch_dtype": "float32", "use_cache": True, "initializer_range": 0.02,
            "rope_scaling": None,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> LlamaConfig:
        """From the content of config.json; raises ValueError for what this model cannot do."""
        if config.get("model_type") != "llama":
            raise ValueError(
                f"model_type {config.get('model_type')!r} given, only 'llama' is known"
            )
        missing = [key for key in REQUIRED if config.get(key) is None]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing; a llama needs {', '.join(REQUIRED)}")
        for key, allowed in (
            ("hidden_act", "silu"),
            ("attention_bias", False),
            ("mlp_bias", False),
        ):
            if config.get(key, allowed) != allowed:
                raise ValueError(f"{key} = {config[key]!r} is not supported, only {allowed!r}")
        if isinstance(config.get("bos_token_id"), list):
            raise ValueError(f"bos_token_id = {config['bos_token_id']} given, allowed is one id")
        known = {f.name for f in fields(cls)}
        chosen = {k: v for k, v in config.items() if k in known and v is not None}
        chosen["rope_theta"] = _rope_theta(config)
        chosen.setdefault("num_key_value_heads", chosen["num_attention_heads"])
        chosen.setdefault("head_dim", chosen["hidden_size"] // chosen["num_attention_heads"])
        chosen.setdefault("tie_word_embeddings", False)
        return cls(**chosen)


def _rope_theta(config: dict[str, Any]) -> float:
    """Base of the rotation; raises ValueError for positions that are scaled, or two bases."""
    bases = [config.get("rope_theta")]
    for key in ("rope_scaling", "rope_parameters"):  # transformers before 5, and since
        given = {k: v for k, v in dict(config.get(key) or {}).items() if v is not None}
        bases.append(given.pop("rope_theta", None))
        kinds = [given.pop(k, "default") for k in ("rope_type", "type")]  # "type" before 4.43
        if given or kinds != ["default", "default"]:
            raise ValueError(
                f"{key} = {config[key]} is not supported, only rope_type 'default' with rope_theta"
            )
    known = sorted({float(base) for base in bases if base is not None})
    if len(known) > 1:
        raise ValueError(f"rope_theta is given twice, as {known}; keep one")
    return known[0] if known else 10000.0


class Attention(Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, c: LlamaConfig) -> None:
        self.c = c
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.q_proj = Linear(c.hidden_size, q, bias=False)
        self.k_proj = Linear(c.hidden_size, kv, bias=False)
        self.v_proj = Linear(c.hidden_size, kv, bias=False)
        self.o_proj = Linear(q, c.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, compute: str) -> Tensor:
        c = self.c
        q, k, v = together(x, [self.q_proj, self.k_proj, self.v_proj], compute)
        q = rope(q.heads(c.num_attention_heads), cos, sin)
        k = rope(k.heads(c.num_key_value_heads), cos, sin)
        out = attention(q, k, v.heads(c.num_key_value_heads))
        flat = out.reshape(*x.shape[:2], c.num_attention_heads * c.head_dim)
        projected: Tensor = self.o_proj(flat, compute, "float32")
        return projected


class MLP(Module):
    """down(silu(gate(x)) * up(x)). Shazeer, "GLU variants improve transformer", 2020."""

    def __init__(self, c: LlamaConfig) -> None:
        self.gate_proj = Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor, compute: str) -> Tensor:
        gate, up = together(x, [self.gate_proj, self.up_proj], compute)
        out: Tensor = self.down_proj(swiglu(gate, up), compute, "float32")
        return out


def together(x: Tensor, layers: Sequence[Linear], compute: str) -> list[Tensor]:
    """Several products of one x as one, where the weights lie side by side and none is adapted."""
    plain = all(isinstance(layer, Linear) for layer in layers)
    joint = adjacent([layer.weight for layer in layers]) if plain else None
    if joint is None:
        return [layer(x, compute) for layer in layers]
    return linear(x, joint, compute).split([layer.weight.shape[0] for layer in layers])


class Block(Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, c: LlamaConfig) -> None:
        self.self_attn = Attention(c)
        self.mlp = MLP(c)
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, compute: str, drop: Drop) -> Tensor:
        x = x + drop(self.self_attn(self.input_layernorm(x, compute), cos, sin, compute))
        out: Tensor = x + drop(self.mlp(self.post_attention_layernorm(x, compute), compute))
        return out


class Decoder(Module):
    """Embedding, blocks, last norm."""

    def __init__(self, c: LlamaConfig) -> None:
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
        self.layers = ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class Llama(CausalLM):
    """A causal language model."""

    config_class = LlamaConfig
    STACK = "model.layers"
    ROLES: ClassVar[Mapping[str, str]] = {
        "embed_tokens": "embedding",
        "lm_head": "head",
        "o_proj": "residual",
        "down_proj": "residual",
    }
    BUFFERS = (".rotary_emb.inv_freq",)
    config: LlamaConfig

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = Decoder(config)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        half = (config.max_position_embeddings, config.head_dim // 2)
        self.cos, self.sin = empty(*half), empty(*half)
        _C.rope_table(self.cos.array, self.sin.array, config.rope_theta)
        self.flatten()

    @property
    def head(self) -> Parameter:
        """The matrix (V, C) that makes logits."""
        tied = self.config.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    def embed(self, ids: Ids) -> Tensor:
        """ids (B, T) -> (B, T, C)."""
        out: Tensor = self.model.embed_tokens(ids)
        return out

    def blocks(self) -> list[Module]:
        """The blocks from below."""
        return list(self.model.layers)

    def common(self) -> tuple[Tensor, Tensor, str, Drop]:
        """The rotation, the type of the inputs of products, dropout."""
        return self.cos, self.sin, self.compute, self.drop

    def last_norm(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        out: Tensor = self.model.norm(x, self.compute)
        return out

    def initial_std(self, role: str, fan_in: int) -> float:
        """Standard deviation of a matrix's first values.

        | untied   | layers: 1 / sqrt(in); o and down: 0              | embedding: 1, head:     |
        |          |                                                  | 1 / sqrt(2C)            |
        | tied     | layers: 1 / sqrt(in); o, down: / sqrt(2 layers)  | both: 1 / sqrt(2C)      |

        First logits of variance 1/2 put the loss a quarter nat above ln V, and every block begins
        as the identity (Zhang et al. 2019, Fixup, arXiv:1901.09321), because what untrained layers
        add to the stream would drown the embeddings. Tied, that would be a model that predicts its
        own input.
        """
        tied = self.config.tie_word_embeddings
        if role == "embedding" and not tied:
            return 1.0
        if role in ("embedding", "head"):
            return 1.0 / math.sqrt(2.0 * fan_in)
        if role != "residual":
            return 1.0 / math.sqrt(fan_in)
        return 1.0 / math.sqrt(2.0 * fan_in * self.config.num_hidden_layers) if tied else 0.0
