"""Writes a Hugging Face llama folder as one GGUF file that gristmill's runtime and llama.cpp run.

Besides weights and tokenizer the file carries, under `gristmill.*`, a sha256 of every tensor and
of the metadata itself, so that a reader detects every changed byte. GGUF `llama` rotates
neighbouring pairs where Hugging Face rotates halves: rows of q and k are permuted per head.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.artifacts import fsync_folder, storage_errors
from gristmill.errors import ArtifactError, DataError, MissingExtraError
from gristmill.models.llama import LlamaConfig
from gristmill.models.loading import read_weights

DTYPES = ("f32", "bf16")
HEADER_KEY = "gristmill.digest.header"
FIM_KEYS = {
    "<|fim_prefix|>": "tokenizer.ggml.fim_pre_token_id",
    "<|fim_suffix|>": "tokenizer.ggml.fim_suf_token_id",
    "<|fim_middle|>": "tokenizer.ggml.fim_mid_token_id",
    "<|fim_pad|>": "tokenizer.ggml.fim_pad_token_id",
}
BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # tokenizer.ggml.token_type


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id as GGUF wants them, merges as 'left right', ids by name of special tokens."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    special: dict[str, int]


def write_gguf(
    folder: Path,
    path: Path,
    *,
    dtype: str = "f32",
    extra: Mapping[str, str | Sequence[str]] | None = None,
    fim: bool = True,
) -> None:
    """Write the llama model in `folder` (config.json, model.safetensors, tokenizer.json) to `path`.

    dtype: of the matrices, 'f32' or 'bf16' (rounded to nearest even); norms stay f32. extra:
    further metadata, strings or lists of strings. fim: name the fill-in-the-middle tokens; false
    for a model that was not trained on holes. The file appears whole or not at all. Raises
    DataError where GGUF's `llama` cannot express the model, StorageError where writing fails.
    """
    if dtype not in DTYPES:
        raise DataError(f"GGUF dtype {dtype!r} given, allowed: {', '.join(DTYPES)}")
    config = _read_config(folder / "config.json")
    vocabulary = read_vocabulary(folder / "tokenizer.json", config.vocab_size)
    if not fim:
        special = {k: v for k, v in vocabulary.special.items() if k not in FIM_KEYS}
        vocabulary = replace(vocabulary, special=special)
    try:
        tensors = _gguf_tensors(read_weights(folder), config)
    except ArtifactError as error:
        raise DataError(f"GGUF export: {error}") from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with storage_errors(path):
            _write(temporary, config, vocabulary, tensors, dtype, extra or {})
            _seal(temporary)
            temporary.replace(path)
            fsync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def read_vocabulary(path: Path, vocab_size: int) -> Vocabulary:
    """Tokens, merges and special ids of a byte-level BPE `tokenizer.json`, `vocab_size` in all.

    Raises DataError where the tokenizer is not GPT-2's kind: the file could not say what it does.
    """
    data = _read_json(path)
    _check_tokenizer(data, path)
    added = {int(t["id"]): t for t in data.get("added_tokens") or []}
    by_id = {int(i): text for text, i in data["model"]["vocab"].items()}
    by_id.update({i: str(t["content"]) for i, t in added.items()})
    if not by_id or max(by_id) >= vocab_size:
        raise DataError(f"{path} has token id {max(by_id, default=-1)}, vocab_size is {vocab_size}")
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(vocab_size)]
    types = [NORMAL if i in by_id else UNUSED for i in range(vocab_size)]
    for i, token in added.items():
        types[i] = CONTROL if token.get("special") else USER_DEFINED
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    special = {str(t["content"]): i for i, t in added.items()}
    return Vocabulary(tokens, types, merges, special)


def permute(weight: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Rows (heads * head_dim, ...) from halves (x0, .., y0, ..) to pairs (x0, y0, ..) per head."""
    head_dim = weight.shape[0] // heads
    split = weight.reshape(heads, 2, head_dim // 2, *weight.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(weight.shape)


def _gguf_package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError(
            "writing GGUF needs the gguf package: pip install 'gristmill[run]'"
        ) from error
    return gguf


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} holds {type(data).__name__}, expected an object")
    return data


def _read_config(path: Path) -> LlamaConfig:
    try:
        config = LlamaConfig.from_dict(_read_json(path))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: {error}") from None
    if len(config.eos_ids) > 1:
        raise DataError(
            f"{path}: eos_token_id is {config.eos_ids}, GGUF export allows one; "
            "keep the one that ends a text"
        )
    return config


def _check_tokenizer(data: Mapping[str, Any], path: Path) -> None:
    model, pre = data.get("model") or {}, data.get("pre_tokenizer") or {}
    wrong = [
        (model.get("type") != "BPE", "model type is not BPE"),
        (bool(model.get("byte_fallback")), "byte_fallback is on"),
        (model.get("dropout") is not None, "dropout is set"),
        (data.get("normalizer") is not None, "a normalizer is set"),
        (pre.get("type") != "ByteLevel", "pre-tokenizer is not ByteLevel"),
        (bool(pre.get("add_prefix_space")), "add_prefix_space is on"),
        (not pre.get("use_regex", True), "use_regex is off"),
    ]
    reasons = [text for bad, text in wrong if bad]
    if reasons:
        raise DataError(
            f"{path} is no GPT-2 byte-level BPE ({'; '.join(reasons)}): GGUF export needs one"
        )


def _gguf_tensors(
    tensors: dict[str, npt.NDArray[np.float32]], config: LlamaConfig
) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors under GGUF names in file order, q and k permuted."""
    names = {"model.embed_tokens": "token_embd"}
    for i in range(config.num_hidden_layers):
        names |= {
            f"model.layers.{i}.{ours}": f"blk.{i}.{theirs}" for ours, theirs in BLOCK_NAMES.items()
        }
    names["model.norm"] = "output_norm"
    tied = config.tie_word_embeddings
    if not tied:
        names["lm_head"] = "output"
    missing = [f"{ours}.weight" for ours in names if f"{ours}.weight" not in tensors]
    known = {f"{ours}.weight" for ours in names} | ({"lm_head.weight"} if tied else set())
    unknown = sorted(set(tensors) - known)
    if missing or unknown:
        raise DataError(
            f"the weights do not match config.json: missing {missing[:3]}, unknown {unknown[:3]}"
        )
    out = {}
    for ours, theirs in names.items():
        weight = tensors[f"{ours}.weight"]
        if theirs.endswith("attn_q"):
            weight = permute(weight, config.num_attention_heads)
        elif theirs.endswith("attn_k"):
            weight = permute(weight, config.num_key_value_heads)
        out[f"{theirs}.weight"] = weight
    return out


def _write(
    path: Path,
    config: LlamaConfig,
    vocabulary: Vocabulary,
    tensors: Mapping[str, npt.NDArray[np.float32]],
    dtype: str,
    extra: Mapping[str, str | Sequence[str]],
) -> None:
    gguf = _gguf_package()
    stored: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in tensors.items():
        as_bf16 = dtype == "bf16" and tensor.ndim > 1
        kind = gguf.GGMLQuantizationType.BF16
        stored[name] = (
            gguf.quants.quantize(tensor, kind) if as_bf16 else np.ascontiguousarray(tensor)
        )
    writer = gguf.GGUFWriter(path, "llama")
    try:
        _add_config(writer, config, dtype)
        _add_tokenizer(writer, vocabulary, config)
        for key, value in extra.items():
            _add_extra(writer, key, value)
        writer.add_string(HEADER_KEY, "0" * 64)
        writer.add_array("gristmill.digest.names", list(stored))
        writer.add_array(
            "gristmill.digest.sha256",
            [hashlib.sha256(t.tobytes()).hexdigest() for t in stored.values()],
        )
        for name, array in stored.items():
            raw = gguf.GGMLQuantizationType.BF16 if array.dtype == np.uint8 else None
            writer.add_tensor(name, array, raw_dtype=raw)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add_config(writer: Any, config: LlamaConfig, dtype: str) -> None:
    gguf = _gguf_package()
    kind = gguf.LlamaFileType.ALL_F32 if dtype == "f32" else gguf.LlamaFileType.MOSTLY_BF16
    writer.add_file_type(kind)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, vocabulary: Vocabulary, config: LlamaConfig) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(False)
    eos = next(iter(config.eos_ids), vocabulary.special.get("<|endoftext|>"))
    if eos is not None:
        writer.add_eos_token_id(eos)
    for name, key in FIM_KEYS.items():
        if name in vocabulary.special:
            writer.add_uint32(key, vocabulary.special[name])


def _add_extra(writer: Any, key: str, value: str | Sequence[str]) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif value:
        writer.add_array(key, list(value))


def _seal(path: Path) -> None:
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
