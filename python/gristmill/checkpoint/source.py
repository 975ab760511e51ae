"""A model somebody has already: a Hugging Face folder or a GGUF file, told apart, checked, opened.

Nothing of it is changed and nothing is downloaded. A pickle is refused: reading one runs code.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.artifacts import read_json, sha256_file
from gristmill.errors import ArtifactError

ALLOWED = (
    "allowed: a Hugging Face folder (config.json, model.safetensors, tokenizer.json) or a GGUF file"
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PARTS = {
    "tokenizer": ("tokenizer.json", "tokenizer_config.json", "config.json"),
    "shape": ("config.json",),
    "weights": ("config.json", "*.safetensors", "model.safetensors.index.json"),
}


@dataclass(frozen=True)
class Source:
    """A model that was given: the content of its config.json, and where its tokenizer is."""

    path: Path
    config: dict[str, Any]

    @property
    def tokenizer(self) -> Path:
        """What data.adopting.adopt reads: the folder or the GGUF itself."""
        return self.path

    def tensors(self) -> tuple[dict[str, npt.NDArray[np.float32]], list[str]]:
        """Return every weight as float32 by our models' (Hugging Face's) names; names of no use.

        Raises ArtifactError where a file is damaged or of another type than f32, f16, bf16.
        """
        from gristmill.models.architectures import architecture_of, config_from_dict

        config = config_from_dict(self.config)
        if self.path.is_file():
            from gristmill.checkpoint.gguf_source import read_tensors

            return read_tensors(self.path, config), []
        from gristmill.models.loading import read_weights

        raw = read_weights(self.path)
        state = architecture_of(config).adopt(config, dict(raw))
        kept = {id(array) for array in state.values()}
        return state, sorted(name for name, array in raw.items() if id(array) not in kept)


def open_source(path: Path | str) -> Source:
    """Return the model at `path`; raises ArtifactError: what was given, allowed, what to do."""
    from gristmill.models.architectures import config_from_dict

    path = locate(path)
    if path.is_file():
        from gristmill.checkpoint.gguf_source import read_config

        config = read_config(path)
    else:
        config = _folder_config(path)
    try:
        config_from_dict(config)
    except (ValueError, TypeError, KeyError) as error:
        where = path if path.is_file() else path / "config.json"
        raise ArtifactError(f"{where}: {error}; give a model of that kind") from None
    return Source(path, config)


def locate(path: Path | str) -> Path:
    """Return the folder or GGUF file at `path`; raises ArtifactError for anything else."""
    path = Path(path)
    if not path.exists():
        raise ArtifactError(
            f"initialize.from = {str(path)!r}: there is no such file or folder; {ALLOWED}; "
            "gristmill downloads none: fetch the model first"
        )
    if path.is_file():
        if path.suffix in PICKLES:
            raise _pickle(path)
        if path.suffix != ".gguf":
            raise ArtifactError(f"{path} given; {ALLOWED}; of a folder give the folder itself")
    elif not (path / "config.json").is_file():
        files = sorted(path.glob("*.gguf"))
        advice = f"give {files[0]} for the GGUF in it" if files else "it lacks config.json"
        raise ArtifactError(f"{path} is no saved model; {ALLOWED}; {advice}")
    elif not any((path / name).is_file() for name in WEIGHTS):
        for file in sorted(path.iterdir()):
            if file.suffix in PICKLES:
                raise _pickle(file)
        raise ArtifactError(f"{path} has no model.safetensors; {ALLOWED}; copy the weights there")
    return path


def digests(path: Path, part: str) -> dict[str, str]:
    """Return {file: sha256} of the files that hold a part (see PARTS) of the model at `path`."""
    path = locate(path)
    found = (
        [path]
        if path.is_file()
        else sorted({file for name in PARTS[part] for file in path.glob(name) if file.is_file()})
    )
    return {file.name: _digest(file, *_stamp(file)) for file in found}


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


@functools.cache
def _digest(file: Path, mtime_ns: int, size: int) -> str:
    """Return the sha256 of a file; read once a process while it is as it was."""
    del mtime_ns, size
    return sha256_file(file)


def _folder_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise ArtifactError(f"{folder / 'config.json'} is no object; {ALLOWED}")
    return config


def _pickle(file: Path) -> ArtifactError:
    return ArtifactError(
        f"{file} is a pickle, and reading one runs the code in it; {ALLOWED}; convert it where you "
        "trust it: transformers' AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)"
    )
