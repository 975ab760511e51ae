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
    make = {"llama": llama_config, "gpt2": gpt2_config}[design.preset or PRESET]
    return make(design, vocab_size)


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


def gpt2_config(design: DesignConfig, vocab_size: int) -> dict[str, Any]:
    """Return the Hugging Face fields of a gpt2 of this design; raises ConfigError for a misfit."""
    depth = design.depth or DEPTH
    hidden = design.hidden_size or _width(depth)
    heads = design.heads or max(1, hidden // (design.head_dim or _head(hidden)))
    wanted = {"kv_heads": heads, "head_dim": hidden // heads, "rope_theta": None}
    for key, only in wanted.items():
        given = getattr(design, key)
        if given not in (None, only):
            raise ConfigError(f"design.{key} {given} given; allowed for a gpt2: {only or 'none'}")
    if hidden % heads:
        raise ConfigError(f"design.heads {heads} given; width {hidden} must be a multiple")
    return {
        "model_type": "gpt2",
        "vocab_size": vocab_size,
        "n_embd": hidden,
        "n_inner": design.intermediate_size,
        "n_layer": depth,
        "n_head": heads,
        "n_positions": design.context,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": design.tie_word_embeddings is not False,
        "bos_token_id": None,
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


@dataclass(frozen=True)
class Sizes:
    """What the fields of a config.json come to, whatever they are called."""

    hidden: int
    layers: int
    heads: int
    head_dim: int
    inner: int
    matrices: int  # weights of a layer's products
    vectors: int  # other parameters of a layer
    outside: int  # parameters outside the layers, without embedding and head
    saved: int  # floats that a layer keeps per token for the way back


def sizes(model: dict[str, Any]) -> Sizes:
    """Return the sizes of a model from its config.json."""
    return {"llama": _llama_sizes, "gpt2": _gpt2_sizes}[model["model_type"]](model)


def _llama_sizes(model: dict[str, Any]) -> Sizes:
    hidden, inner = model["hidden_size"], model["intermediate_size"]
    wide = model["num_attention_heads"] * model["head_dim"]
    narrow = model["num_key_value_heads"] * model["head_dim"]
    matrices = 2 * hidden * wide + 2 * hidden * narrow + 3 * hidden * inner
    # two norms' outputs, q k v, attention's output, two streams, gate, up and their product
    saved = 4 * hidden + 2 * wide + 2 * narrow + 3 * inner
    layers, heads = model["num_hidden_layers"], model["num_attention_heads"]
    return Sizes(
        hidden, layers, heads, model["head_dim"], inner, matrices, 2 * hidden, hidden, saved
    )


def _gpt2_sizes(model: dict[str, Any]) -> Sizes:
    hidden, heads = model["n_embd"], model["n_head"]
    inner = model["n_inner"] or 4 * hidden
    matrices = 4 * hidden * hidden + 2 * hidden * inner
    vectors = 9 * hidden + inner  # two norms' weights and biases, biases of the four products
    outside = model["n_positions"] * hidden + 2 * hidden
    # two norms' outputs, q k v, attention's output, two streams, gelu's input and output
    saved = 8 * hidden + 2 * inner
    return Sizes(
        hidden, model["n_layer"], heads, hidden // heads, inner, matrices, vectors, outside, saved
    )


def cost(
    model: dict[str, Any], context: int, batch: int, recompute: bool = False, shards: int = 1
) -> Cost:
    """Return parameters, FLOPs and memory of a model_config trained on (batch, context) tokens.

    FLOPs: 6 per weight of a product and token (Kaplan et al. 2020, section 2.1), plus attention's
    scores and sums, 6 x layers x heads x head_dim x context with the causal half left out.
    """
    z = sizes(model)
    table = model["vocab_size"] * z.hidden
    tables = table if model["tie_word_embeddings"] else 2 * table
    parameters = tables + z.layers * (z.matrices + z.vectors) + z.outside
    flops = 6 * (z.layers * z.matrices + table) + 6 * z.layers * z.heads * z.head_dim * context
    kept = z.layers * z.hidden + z.saved if recompute else z.layers * z.saved
    branches = (shards - 1).bit_length()  # gradients that wait while shards are added
    return Cost(parameters, flops, (16 + 4 * branches) * parameters + 4 * batch * context * kept)
