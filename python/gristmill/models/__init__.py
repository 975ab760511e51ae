"""Models by name, and loading them from Hugging Face folders."""

from gristmill.models.llama import Llama, LlamaConfig
from gristmill.models.loading import from_pretrained

__all__ = ["Llama", "LlamaConfig", "from_pretrained"]
