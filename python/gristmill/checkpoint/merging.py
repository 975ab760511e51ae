"""A model and an adapter as one model: folders to a folder, a GGUF to a GGUF."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from gristmill.artifacts import read_json, sha256_file, storage_errors
from gristmill.checkpoint.gguf import finish, seal
from gristmill.checkpoint.gguf_names import gguf_tensors
from gristmill.checkpoint.source import Source, open_source
from gristmill.data.gguf_file import open_gguf
from gristmill.errors import ArtifactError, ConfigError
from gristmill.models import CausalLM, build, config_from_dict
from gristmill.models.adapters import CONFIG, WEIGHTS, load_adapter
from gristmill.models.saving import save_model
from gristmill.nn.lora import merged_tensors

ADAPTER = "gristmill.adapter"  # sha256 of what was merged in
# said of the weights before: they are no longer those
BOUND = ("gristmill.selftest.", "gristmill.digest.", "gristmill.report", "gristmill.reference")


def merge_folder(model: Path, adapter: Path, out: Path) -> CausalLM:
    """Write the Hugging Face folder `out`: the model in `model` with an adapter added to it.

    Tokenizer and other small files are copied. Raises ArtifactError, ConfigError, StorageError.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; name another folder")
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder {out.parent} to write {out.name} to")
    if model.is_file():
        raise ArtifactError(f"{model} is a file; allowed: a Hugging Face folder")
    merged = _merged(open_source(model), adapter)
    save_model(merged, out)
    with storage_errors(out):
        for file in model.iterdir():
            small = file.suffix in (".json", ".jinja", ".txt") and ".safetensors" not in file.name
            if file.is_file() and small and not (out / file.name).exists():
                shutil.copy(file, out / file.name)
    return merged


def merge_gguf(path: Path, adapter: Path, target: Path) -> None:
    """Write `target`: the GGUF at `path` with an adapter added to its weights, matrices in f32.

    Tokenizer, lineage and chat template stay; what was measured of the old weights (self-test,
    report, references) is left out. Raises ArtifactError, StorageError.
    """
    import gguf

    source = open_source(path)
    merged = _merged(source, adapter)
    kind = str(source.config["model_type"])
    state = {name: array.numpy() for name, array in merged.tensors()}
    reader = open_gguf(path)
    writer = gguf.GGUFWriter(target, kind)
    try:
        for key, field in reader.fields.items():
            own = key.startswith(("GGUF.", *BOUND)) or key == "general.architecture"
            if not own:
                inner = field.types[-1] if len(field.types) > 1 else None
                writer.add_key_value(key, _stated(key, field, gguf), field.types[0], inner)
        writer.add_string(ADAPTER, _digest(adapter))
        with storage_errors(target):
            finish(writer, gguf_tensors(state, merged.config, kind))
    finally:
        writer.close()
    with storage_errors(target):
        seal(target)


def _stated(key: str, field: Any, gguf: Any) -> Any:
    """Return a key's value; the type of the file is that of the matrices now in it."""
    return int(gguf.LlamaFileType.ALL_F32) if key == "general.file_type" else field.contents()


def _merged(source: Source, adapter: Path) -> CausalLM:
    """Return the model of a source with the adapter in its weights, and no adapter beside them."""
    config = config_from_dict(source.config)
    model = build(config)
    try:
        model.load_state_dict(source.tensors()[0])
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{source.path} does not fit its config: {error.args[0]}") from None
    load_adapter(model, adapter)
    plain = build(config)
    plain.load_state_dict({name: array.numpy() for name, array in merged_tensors(model)})
    return plain


def _digest(adapter: Path) -> str:
    read_json(adapter / CONFIG)
    both = "".join(sha256_file(adapter / name) for name in (CONFIG, WEIGHTS))
    return hashlib.sha256(both.encode()).hexdigest()
