"""[train.lora] on a model: which layers learn, and what that costs less than learning all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gristmill.artifacts import read_json
from gristmill.models import CausalLM, build, config_from_dict
from gristmill.models.adapters import add_adapter
from gristmill.training.settings import LoraConfig
from gristmill.training.shape import Cost, sizes


def adapt(
    model: CausalLM, lora: LoraConfig, new_tokens: bool, seed: int, base: str | None = None
) -> None:
    """Put the adapter of [train.lora] into `model`; does nothing at rank 0.

    new_tokens: rows were added, all alike; then embedding and head learn as a whole, or the model
    could never tell the new tokens apart.
    """
    if not lora.rank:
        return
    saved = [name for name, role in model.ROLES.items() if role in ("embedding", "head")]
    there = {name.split(".")[-2] for name, _ in model.named_parameters()}
    add_adapter(
        model, lora.rank, lora.alpha or 2.0 * lora.rank, lora.dropout, lora.targets,
        [name for name in saved if name in there] if new_tokens else (), seed, base,
    )  # fmt: skip


def has_new_tokens(split: Path) -> bool:
    """Say whether stage split appended tokens to a given tokenizer; `split` is its folder."""
    facts = split / "adopted.json"
    return facts.is_file() and bool(read_json(facts)["appended"])


def adapted_cost(price: Cost, model: dict[str, Any], lora: LoraConfig, new_tokens: bool) -> Cost:
    """Return the cost of training the adapter alone, from that of training everything.

    Frozen weights take 4 bytes instead of 16, and of 6 FLOPs each (2 forward, 2 for the gradient
    of the input, 2 for their own) they take 4.
    """
    if not lora.rank:
        return price
    layers, names = sizes(model).layers, {"llama": "num_hidden_layers", "gpt2": "n_layer"}
    one = build(config_from_dict(model | {names[model["model_type"]]: 1, "vocab_size": 8}))
    adapt(one, lora, False, 0)
    learning = layers * sum(p.size for p in one.parameters() if p.requires_grad)
    if new_tokens:
        tables = 1 if model["tie_word_embeddings"] else 2
        learning += tables * model["vocab_size"] * sizes(model).hidden
    memory = price.memory_bytes + 16 * learning - 12 * price.parameters
    return replace(price, memory_bytes=memory, flops_per_token=price.flops_per_token * 2 // 3)
