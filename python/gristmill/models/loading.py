"""Models from Hugging Face folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import ArtifactError
from gristmill.models.architectures import ARCHITECTURES, build, config_from_dict
from gristmill.models.causal import CausalLM

BUFFERS = tuple(ending for model in ARCHITECTURES.values() for ending in model.BUFFERS)


def from_pretrained(folder: str | Path) -> CausalLM:
    """The model of a folder with config.json and model.safetensors, as float32.

    Raises ArtifactError when a file is missing, damaged, or of another architecture.
    """
    folder = Path(folder)
    try:
        config = config_from_dict(json.loads((folder / "config.json").read_text("utf-8")))
    except FileNotFoundError:
        raise ArtifactError(f"{folder} has no config.json: not a saved model") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / 'config.json'}: {error}") from None
    model = build(config)
    state = read_weights(folder)
    try:
        model.load_state_dict(model.adopt(config, state))
    except (KeyError, ValueError) as error:
        raise ArtifactError(
            f"{folder / 'model.safetensors'} does not fit its config.json: {error.args[0]}"
        ) from None
    return model


def read_weights(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor of model.safetensors, or of the files its index names, widened to float32.

    Raises ArtifactError when a file is missing, damaged, or holds another dtype than float32,
    float16 or bfloat16.
    """
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ArtifactError(f"{index} is damaged: {error}") from None
    state: dict[str, npt.NDArray[np.float32]] = {}
    for name in names:
        state |= read_tensors(folder / name)
    return state


def read_tensors(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor of one safetensors file, widened to float32; raises ArtifactError."""
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: not a saved model") from None
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is damaged or not safetensors: {error}") from None
    try:
        return {name: _widen(name, entry) for name, entry in entries}
    except TypeError as error:
        raise ArtifactError(f"{path}: {error}") from None


def _widen(name: str, entry: dict[str, Any]) -> npt.NDArray[np.float32]:
    """One tensor as float32; bfloat16 is the upper half of a float32."""
    kind, data, shape = entry["dtype"], entry["data"], entry["shape"]
    if kind == "BF16":
        upper = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return upper.view(np.float32).reshape(shape)
    kinds = {"F32": "<f4", "F16": "<f2"}
    if name.endswith(BUFFERS):  # masks, of whatever type; no parameter becomes of them
        kinds |= {"BOOL": "u1", "U8": "u1"}
    if kind not in kinds:
        raise TypeError(f"a tensor is {kind}, allowed are F32, F16 and BF16; convert the model")
    values = np.frombuffer(data, kinds[kind])
    return values.astype(np.float32, copy=False).reshape(shape)
