"""Shape and cost of a model before it is built: one dial, every width derived, all overridable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gristmill.errors import ConfigError
from gristmill.training.settings import DesignConfig

PRESET, DEPTH, ROPE_THETA = "llama", 3, 10000.0  # where nothing is given
WIDTH_PER_LAYER = 64  # the depth dial: 3 layers of 192, 4 of 256, 8 of 512 ...
HEAD = 64  # width of a head where the model's width allows


@dataclass(frozen=True)
class Cost:
    """What a model of this shape takes."""

    parameters: int
    flops_per_token: int  # forward and backward, attention's causal half counted
    memory_bytes: int  # weights, gradients, two AdamW averages, saved activations of a micro-batch


def model_config(design: DesignConfig, vocab_size: int) -> dict[str, Any]:
    """Return the Hugging Face fields of a model of this design; raises ConfigError for a misfit."""
    return {"llama": llama_config}[design.preset or PRESET](design, vocab_size)


def llama_config(design: DesignConfig, vocab_size: int) -> dict[str, Any]:
    """Return the Hugging Face fields of a llama of this design; raises ConfigError for a misfit."""
    depth = design.depth or DEPTH
    hidden = design.hidden_size or _width(depth)
    head_dim = design.head_dim or (hidden // design.heads if design.heads else _head(hidden))
    heads = design.heads or max(1, hidden // head_dim)
    kv_heads = design.kv_heads or heads
    if heads % kv_heads:
        raise ConfigError(f"design.kv_heads {kv_heads} given; heads {heads} must be a multiple")
    if head_dim % 2:
        raise ConfigError(
            f"design: width {hidden} over {heads} heads gives head_dim {head_dim}; "
            "it must be even: give design.head_dim"
        )
    intermediate = design.intermediate_size or -(-8 * hidden // 3 // 64) * 64
    return {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": 1e-5,
        "rope_theta": design.rope_theta or ROPE_THETA,
        "max_position_embeddings": design.context,
        "tie_word_embeddings": bool(design.tie_word_embeddings),
    }


def _width(depth: int) -> int:
    """Return 64 x depth; from 512 on the nearest multiple of 256."""
    width = WIDTH_PER_LAYER * depth
    return width if width < 512 else round(width / 256) * 256


def _head(hidden: int) -> int:
    """Return the largest even head width up to 64 that divides the model's width."""
    fitting = [size for size in range(2, min(HEAD, hidden) + 1, 2) if hidden % size == 0]
    if not fitting:
        raise ConfigError(f"design.hidden_size {hidden} given; allowed: even numbers")
    return fitting[-1]


def cost(
    model: dict[str, Any], context: int, batch: int, recompute: bool = False, shards: int = 1
) -> Cost:
    """Return parameters, FLOPs and memory of a llama_config trained on (batch, context) tokens.

    FLOPs: 6 per weight of a product and token (Kaplan et al. 2020, section 2.1), plus attention's
    scores and sums, 6 x layers x heads x head_dim x context with the causal half left out.
    """
    hidden, layers = model["hidden_size"], model["num_hidden_layers"]
    wide = model["num_attention_heads"] * model["head_dim"]
    narrow = model["num_key_value_heads"] * model["head_dim"]
    table = model["vocab_size"] * hidden
    layer = 2 * hidden * wide + 2 * hidden * narrow + 3 * hidden * model["intermediate_size"]
    tables = table if model["tie_word_embeddings"] else 2 * table
    parameters = tables + layers * (layer + 2 * hidden) + hidden
    flops = 6 * (layers * layer + table) + 6 * layers * wide * context
    # floats kept per token and layer: two norms' outputs, q k v, attention's output, two residual
    # streams, gate, up and their product
    saved = 4 * hidden + 2 * wide + 2 * narrow + 3 * model["intermediate_size"]
    kept = layers * hidden + saved if recompute else layers * saved
    branches = (shards - 1).bit_length()  # gradients that wait while shards are added
    return Cost(parameters, flops, (16 + 4 * branches) * parameters + 4 * batch * context * kept)
