"""Models to Hugging Face folders, plus `training/` while a model is being trained.

A folder is written beside its place and renamed into it, so a reader finds the old one or the new.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.artifacts import fsync_folder, storage_errors

if TYPE_CHECKING:
    from gristmill.models.causal import CausalLM


def save_model(model: CausalLM, folder: Path, training: dict[str, Any] | None = None) -> None:
    """Write `model` to `folder`; `training` has JSON values and, under "arrays", float32 arrays.

    Raises StorageError where the disk refuses; an old folder is then untouched.
    """
    beside = folder.with_name(f".{folder.name}.new")
    with storage_errors(folder):
        shutil.rmtree(beside, ignore_errors=True)
        try:
            _write_folder(model, beside, training)
            swap_in(beside, folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)  # a full disk wants its space back
            raise


def _write_folder(model: CausalLM, folder: Path, training: dict[str, Any] | None) -> None:
    from safetensors.numpy import save

    folder.mkdir(parents=True)
    config = model.config.to_dict()
    ids = {k: v for k in ("bos_token_id", "eos_token_id") if (v := config[k]) is not None}
    _write(folder / "config.json", _json(config))
    _write(folder / "generation_config.json", _json(ids))
    weights = {name: np.ascontiguousarray(a.numpy()) for name, a in model.tensors()}
    _write(folder / "model.safetensors", save(weights, {"format": "pt"}))
    if model.adapter is not None:
        write_adapter(model, folder / "adapter")
    if training is not None:
        (folder / "training").mkdir()
        rest = {k: v for k, v in training.items() if k != "arrays"}
        _write(folder / "training" / "state.json", _json(rest))
        _write(folder / "training" / "optimizer.safetensors", save(training["arrays"]))
        fsync_folder(folder / "training")
    fsync_folder(folder)


def write_adapter(model: CausalLM, folder: Path) -> None:
    """Write what learned beside the frozen weights, as peft has it."""
    from safetensors.numpy import save

    from gristmill.models.adapters import CONFIG, WEIGHTS, adapter_tensors

    folder.mkdir()
    _write(folder / CONFIG, _json(model.adapter.config()))
    _write(folder / WEIGHTS, save(adapter_tensors(model), {"format": "pt"}))
    fsync_folder(folder)


def swap_in(beside: Path, folder: Path) -> None:
    """Put a finished folder in place. Between the two renames the old one is `.NAME.old`."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(beside, folder)
    except OSError:
        recover(folder)
        raise
    fsync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> bool:
    """Whether a finished folder is there, after undoing or completing a swap that was cut off."""
    old, beside = (folder.with_name(f".{folder.name}.{end}") for end in ("old", "new"))
    if not folder.exists() and old.exists():
        os.rename(old, folder)
    for left in (old, beside):  # they would become part of a stage's output
        shutil.rmtree(left, ignore_errors=True)
    return folder.exists()


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
