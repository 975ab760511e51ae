"""What a checkpoint has beside the model: the folder `training/` that models.saving writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gristmill.errors import ArtifactError


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
