"""Models by name, and loading them from Hugging Face folders."""

from gristmill.models.architectures import ARCHITECTURES, build, config_from_dict
from gristmill.models.causal import CausalLM, ModelConfig
from gristmill.models.gpt2 import GPT2, GPT2Config
from gristmill.models.llama import Llama, LlamaConfig
from gristmill.models.loading import from_pretrained

__all__ = [
    "ARCHITECTURES",
    "GPT2",
    "CausalLM",
    "GPT2Config",
    "Llama",
    "LlamaConfig",
    "ModelConfig",
    "build",
    "config_from_dict",
    "from_pretrained",
]
