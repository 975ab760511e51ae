"""Every architecture by the name that config.json gives it in model_type."""

from __future__ import annotations

from typing import Any

from gristmill.models.causal import CausalLM, ModelConfig
from gristmill.models.gpt2 import GPT2
from gristmill.models.llama import Llama

ARCHITECTURES: dict[str, type[CausalLM]] = {"llama": Llama, "gpt2": GPT2}


def config_from_dict(config: dict[str, Any]) -> ModelConfig:
    """From the content of config.json; raises ValueError for what no model here can do."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(map(repr, ARCHITECTURES))
        raise ValueError(f"model_type {kind!r} given, known are {known}")
    made: ModelConfig = ARCHITECTURES[kind].config_class.from_dict(config)
    return made


def architecture_of(config: ModelConfig) -> type[CausalLM]:
    """The class of the models that `config` describes."""
    for model in ARCHITECTURES.values():
        if isinstance(config, model.config_class):
            return model
    raise TypeError(f"{type(config).__name__} is the config of no architecture in ARCHITECTURES")


def build(config: ModelConfig) -> CausalLM:
    """A model with fresh weights."""
    return architecture_of(config)(config)
