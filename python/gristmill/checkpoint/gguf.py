"""Writes a Hugging Face folder (llama, gpt2) as one GGUF file that our runtime and llama.cpp run.

Besides weights and tokenizer the file carries, under `gristmill.*`, a sha256 of every tensor and
of the metadata itself, so that a reader detects every changed byte.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.artifacts import fsync_folder, storage_errors
from gristmill.checkpoint.gguf_names import gguf_tensors
from gristmill.checkpoint.vocabulary import Vocabulary, read_json
from gristmill.checkpoint.vocabulary import read_vocabulary as read_vocabulary
from gristmill.data.specials import EOS, FIM_MIDDLE, FIM_PAD, FIM_PREFIX, FIM_SUFFIX, find
from gristmill.errors import ArtifactError, DataError, MissingExtraError
from gristmill.models.architectures import architecture_of, config_from_dict
from gristmill.models.causal import ModelConfig, eos_ids
from gristmill.models.loading import read_weights

DTYPES = ("f32", "bf16")
HEADER_KEY = "gristmill.digest.header"
FIM_KEYS = {
    FIM_PREFIX: "tokenizer.ggml.fim_pre_token_id",
    FIM_SUFFIX: "tokenizer.ggml.fim_suf_token_id",
    FIM_MIDDLE: "tokenizer.ggml.fim_mid_token_id",
    FIM_PAD: "tokenizer.ggml.fim_pad_token_id",
}


def write_gguf(
    folder: Path,
    path: Path,
    *,
    dtype: str = "f32",
    extra: Mapping[str, str | Sequence[str]] | None = None,
    fim: bool = True,
) -> None:
    """Write the model in `folder` (config.json, model.safetensors, tokenizer.json) to `path`.

    dtype: of the matrices, 'f32' or 'bf16' (rounded to nearest even); vectors and gpt2's table of
    positions stay f32, as llama.cpp wants them. extra: further metadata, strings or lists of
    strings. fim: name the fill-in-the-middle tokens; false for a model that was not trained on
    holes. The file appears whole or not at all. Raises DataError where GGUF cannot express the
    model, StorageError where writing fails.
    """
    if dtype not in DTYPES:
        raise DataError(f"GGUF dtype {dtype!r} given, allowed: {', '.join(DTYPES)}")
    config, kind = _read_config(folder / "config.json")
    vocabulary = read_vocabulary(folder / "tokenizer.json", config.vocab_size)
    if not fim:
        holes = {name for role, name in find(vocabulary.special).items() if role in FIM_KEYS}
        special = {k: v for k, v in vocabulary.special.items() if k not in holes}
        vocabulary = replace(vocabulary, special=special)
    try:
        state = architecture_of(config).adopt(config, dict(read_weights(folder)))
        tensors = gguf_tensors(state, config, kind)
    except ArtifactError as error:
        raise DataError(f"GGUF export: {error}") from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with storage_errors(path):
            _write(temporary, kind, config, vocabulary, tensors, dtype, extra or {})
            seal(temporary)
            temporary.replace(path)
            fsync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _gguf_package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError(
            "writing GGUF needs the gguf package: pip install 'gristmill[run]'"
        ) from error
    return gguf


def _read_config(path: Path) -> tuple[ModelConfig, str]:
    """Return the config and its model_type."""
    data = read_json(path)
    try:
        config = config_from_dict(data)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: {error}") from None
    check_config(config, path)
    return config, str(data["model_type"])


def check_config(config: ModelConfig, path: Path) -> None:
    """Raise DataError where GGUF has no word for what a config says; `path` is where it stands."""
    activation = config.to_dict().get("activation_function", "gelu_new")
    if activation != "gelu_new":
        raise DataError(f"{path}: activation_function is {activation!r}, GGUF knows gelu_new only")
    if len(ends := eos_ids(config)) > 1:
        raise DataError(
            f"{path}: eos_token_id is {ends}, GGUF export allows one; keep the one that ends a text"
        )
    for name, ids in (("bos", [config.bos_token_id]), ("eos", ends)):
        for id in ids:
            if id is not None and not 0 <= id < config.vocab_size:
                raise DataError(
                    f"{path}: {name}_token_id is {id}, allowed are ids from 0 to "
                    f"{config.vocab_size - 1}; take it out"
                )


def _write(
    path: Path,
    kind: str,
    config: ModelConfig,
    vocabulary: Vocabulary,
    tensors: Mapping[str, npt.NDArray[np.float32]],
    dtype: str,
    extra: Mapping[str, str | Sequence[str]],
) -> None:
    gguf = _gguf_package()
    stored: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in tensors.items():
        as_bf16 = dtype == "bf16" and tensor.ndim > 1 and not name.startswith("position_embd")
        stored[name] = (
            gguf.quants.quantize(tensor, gguf.GGMLQuantizationType.BF16)
            if as_bf16
            else np.ascontiguousarray(tensor)
        )
    writer = gguf.GGUFWriter(path, kind)
    try:
        _add_config(writer, kind, config, dtype)
        _add_tokenizer(writer, vocabulary, config)
        for key, value in extra.items():
            _add_extra(writer, key, value)
        finish(writer, stored)
    finally:
        writer.close()


def finish(writer: Any, stored: Mapping[str, npt.NDArray[Any]]) -> None:
    """Add digests and tensors (bytes: bf16) to a writer that has all else, and write the file."""
    writer.add_string(HEADER_KEY, "0" * 64)
    writer.add_array("gristmill.digest.names", list(stored))
    writer.add_array(
        "gristmill.digest.sha256",
        [hashlib.sha256(t.tobytes()).hexdigest() for t in stored.values()],
    )
    for name, array in stored.items():
        bf16 = _gguf_package().GGMLQuantizationType.BF16
        writer.add_tensor(name, array, raw_dtype=bf16 if array.dtype == np.uint8 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()


def _add_config(writer: Any, kind: str, config: ModelConfig, dtype: str) -> None:
    gguf = _gguf_package()
    stored = gguf.LlamaFileType.ALL_F32 if dtype == "f32" else gguf.LlamaFileType.MOSTLY_BF16
    writer.add_file_type(stored)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    fields = config.to_dict()
    if kind == "gpt2":
        writer.add_feed_forward_length(fields.get("n_inner") or 4 * config.hidden_size)
        writer.add_layer_norm_eps(fields["layer_norm_epsilon"])
        return
    writer.add_feed_forward_length(fields["intermediate_size"])
    writer.add_head_count_kv(fields["num_key_value_heads"])
    writer.add_key_length(fields["head_dim"])
    writer.add_value_length(fields["head_dim"])
    writer.add_rope_dimension_count(fields["head_dim"])
    writer.add_rope_freq_base(fields["rope_theta"])
    writer.add_layer_norm_rms_eps(fields["rms_norm_eps"])


def _add_tokenizer(writer: Any, vocabulary: Vocabulary, config: ModelConfig) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(vocabulary.bos is not None)
    bos = config.bos_token_id if vocabulary.bos is None else vocabulary.bos
    if bos is not None:
        writer.add_bos_token_id(bos)
    roles = find(vocabulary.special)
    eos = next(iter(eos_ids(config)), vocabulary.special.get(roles.get(EOS, "")))
    if eos is not None:
        writer.add_eos_token_id(eos)
    for role, key in FIM_KEYS.items():
        if role in roles:
            writer.add_uint32(key, vocabulary.special[roles[role]])


def _add_extra(writer: Any, key: str, value: str | Sequence[str]) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif value:
        writer.add_array(key, list(value))


def seal(path: Path) -> None:
    """Write the digest of the metadata: sha256 up to the tensor data, its own digits as '0'."""
    try:
        reader = _gguf_package().GGUFReader(path)
    except ValueError as error:  # numpy's tofile does not see a disk that is full at its last flush
        raise OSError(errno.ENOSPC, "the end of the file was not written") from error
    field = reader.fields[HEADER_KEY]
    data_start = int(reader.data_offset)
    at = int(field.offset) + 8 + len(HEADER_KEY) + 4 + 8
    del reader, field  # unmaps the file
    with path.open("r+b") as file:
        header = file.read(data_start)
        if header[at : at + 64] != b"0" * 64:
            raise DataError(f"{path}: the metadata digest is not where the gguf package says")
        file.seek(at)
        file.write(hashlib.sha256(header).hexdigest().encode("ascii"))
        file.flush()
        os.fsync(file.fileno())
