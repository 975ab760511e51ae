"""Models from Hugging Face folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from gristmill.errors import ArtifactError
from gristmill.models.llama import Llama, LlamaConfig


def from_pretrained(folder: str | Path) -> Llama:
    """The model of a folder with config.json and model.safetensors, as float32.

    Raises ArtifactError when a file is missing, damaged, or of another architecture.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
    try:
        config = LlamaConfig.from_dict(json.loads((folder / "config.json").read_text("utf-8")))
    except FileNotFoundError:
        raise ArtifactError(f"{folder} has no config.json: not a saved model") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / 'config.json'}: {error}") from None
    model = Llama(config)
    path = folder / "model.safetensors"
    try:
        with safe_open(path, framework="np") as file:
            state = {name: _widen(file, name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ArtifactError(f"{folder} has no model.safetensors: not a saved model") from None
    except SafetensorError as error:
        raise ArtifactError(f"{path} is damaged or not safetensors: {error}") from None
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    try:
        model.load_state_dict(state)
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{path} does not fit its config.json: {error.args[0]}") from None
    return model


def _widen(file: object, name: str) -> np.ndarray:
    piece = file.get_slice(name)  # type: ignore[attr-defined]
    if piece.get_dtype() != "BF16":
        return np.asarray(file.get_tensor(name), dtype=np.float32)  # type: ignore[attr-defined]
    raise ValueError(f"{name} is bfloat16; save the model as float32 first")
