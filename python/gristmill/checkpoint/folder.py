"""A saved model is a Hugging Face folder, plus `training/` while it is being trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gristmill.errors import ArtifactError
from gristmill.models.saving import recover, save_model, swap_in

__all__ = ["load_training", "recover", "save_model", "swap_in"]


def load_training(folder: Path) -> dict[str, Any]:
    """The content of `training/`; raises ArtifactError when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        state: dict[str, Any] = json.loads((folder / "training" / "state.json").read_text("utf-8"))
        state["arrays"] = load_file(folder / "training" / "optimizer.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{folder}/training cannot be read: {error}") from None
    return state
