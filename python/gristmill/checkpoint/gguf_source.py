"""A GGUF file read back as Hugging Face would have it: config.json's fields, tensors by its names.

The opposite of `gguf_names`: rows of llama's q and k go from neighbouring pairs to halves, gpt2's
matrices from (out, in) to Hugging Face's (in, out).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.checkpoint.gguf_names import NAMES, full_names, turn_of
from gristmill.data.gguf_file import open_gguf, value
from gristmill.errors import ArtifactError

Floats = npt.NDArray[np.float32]
TYPES = ("F32", "F16", "BF16")


def read_config(path: Path) -> dict[str, Any]:
    """Return config.json's fields of the model in a GGUF; raises ArtifactError."""
    reader = open_gguf(path)
    kind = value(reader, "general.architecture")
    if not isinstance(kind, str) or kind not in NAMES:
        raise ArtifactError(
            f"{path} has general.architecture {kind!r}; allowed: {', '.join(NAMES)}"
        )
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    ids = {
        f"{name}_token_id": value(reader, f"tokenizer.ggml.{name}_token_id")
        for name in ("bos", "eos")
    }
    table = next((t for t in reader.tensors if t.name == "token_embd.weight"), None)
    if table is None or len(table.shape) != 2:
        raise ArtifactError(f"{path} has no matrix token_embd.weight; give a GGUF of a whole model")
    shared = {"vocab_size": int(table.shape[1]), "tie_word_embeddings": tied, **ids}
    try:
        made = _llama(reader) if kind == "llama" else _gpt2(reader)
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}; convert the model again") from None
    return {"model_type": kind, **shared, **made}


def _size(reader: Any, key: str, default: int | None = None) -> int:
    found = value(reader, key, default)
    if found is None:
        raise ValueError(f"{key} is missing")
    if type(found) is not int or found < 1:
        raise ValueError(f"{key} is {found!r}, allowed are whole numbers from 1")
    return found


def _real(reader: Any, key: str, default: float | None = None) -> float:
    found = value(reader, key, default)
    if found is None:
        raise ValueError(f"{key} is missing")
    if type(found) not in (int, float) or not 0 < found < math.inf:
        raise ValueError(f"{key} is {found!r}, allowed are numbers above 0")
    return float(found)


def _scaling(reader: Any) -> str:
    """Return how positions are scaled; a factor without a type is linear, as in llama.cpp."""
    if any(tensor.name == "rope_freqs.weight" for tensor in reader.tensors):
        return "llama3"
    factors = (value(reader, f"llama.rope.{key}", 1) for key in ("scaling.factor", "scale_linear"))
    silent = "none" if all(factor in (0, 1) for factor in factors) else "linear"
    return str(value(reader, "llama.rope.scaling.type", silent))


def _llama(reader: Any) -> dict[str, Any]:
    heads = _size(reader, "llama.attention.head_count")
    width = _size(reader, "llama.embedding_length")
    head_dim = _size(reader, "llama.attention.key_length", width // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if (n := _size(reader, f"llama.{name}", head_dim)) != head_dim:
            raise ValueError(f"llama.{name} is {n}, allowed is the width of a head, {head_dim}")
    scaling = _scaling(reader)
    return {
        "hidden_size": width,
        "intermediate_size": _size(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _size(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _size(reader, "llama.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": _decimal(_real(reader, "llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": _real(reader, "llama.rope.freq_base", 10000.0),
        "max_position_embeddings": _size(reader, "llama.context_length"),
        # said in Hugging Face's words, so that one place decides what a model here can do
        "rope_scaling": None if scaling == "none" else {"rope_type": scaling},
    }


def _gpt2(reader: Any) -> dict[str, Any]:
    return {
        "n_embd": _size(reader, "gpt2.embedding_length"),
        "n_layer": _size(reader, "gpt2.block_count"),
        "n_head": _size(reader, "gpt2.attention.head_count"),
        "n_inner": _size(reader, "gpt2.feed_forward_length"),
        "n_positions": _size(reader, "gpt2.context_length"),
        "layer_norm_epsilon": _decimal(_real(reader, "gpt2.attention.layer_norm_epsilon")),
        "activation_function": "gelu_new",
    }


def _decimal(value: float) -> float:
    """Return the number that was meant by one stored as float32: 1e-5, not 9.99999974e-06."""
    return float(np.format_float_positional(np.float32(value), unique=True))


def read_tensors(path: Path, config: Any) -> dict[str, Floats]:
    """Return every weight of a GGUF as float32 under Hugging Face's name; raises ArtifactError."""
    reader = open_gguf(path)
    kind = value(reader, "general.architecture")
    tied, layers = config.tie_word_embeddings, config.num_hidden_layers
    names = {b: a for a, b in full_names(NAMES[kind], layers, tied).items()}
    state = {}
    for tensor in reader.tensors:
        if tensor.name not in names:
            raise ArtifactError(
                f"{path}: a {kind} of {layers} layers has no tensor {tensor.name}; "
                "convert the model again"
            )
        weight = widen(path, tensor)
        try:
            state[names[tensor.name]] = _turned(tensor.name, weight, kind, config)
        except ValueError as error:
            raise ArtifactError(f"{path}: {error}; convert the model again") from None
    return state


def _turned(name: str, weight: Floats, kind: str, config: Any) -> Floats:
    if kind == "gpt2":  # a transposition is its own opposite
        return turn_of(kind, config)(name, weight)  # type: ignore[no-any-return]
    part = name.split(".")[-2]
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    if part not in heads:
        return weight
    if len(weight) % (2 * heads[part]):
        raise ValueError(f"{name} has {len(weight)} rows, allowed are {heads[part]} heads of pairs")
    return unpermute(weight, heads[part])


def widen(path: Path, tensor: Any) -> Floats:
    import gguf

    kind = tensor.tensor_type.name
    if kind not in TYPES:
        raise ArtifactError(
            f"{path}: {tensor.name} is {kind}; allowed: {', '.join(TYPES)}; a quantized model has "
            "lost what training needs: take the file it was made from"
        )
    wide: Floats = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return np.ascontiguousarray(wide, np.float32).reshape(tensor.shape[::-1])


def unpermute(weight: Floats, heads: int) -> Floats:
    """Rows (heads * head_dim, ...) from pairs (x0, y0, ..) to halves (x0, .., y0, ..) per head."""
    head_dim = weight.shape[0] // heads
    split = weight.reshape(heads, head_dim // 2, 2, *weight.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(weight.shape)
