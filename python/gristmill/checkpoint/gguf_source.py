"""A GGUF file read back as Hugging Face would have it: config.json's fields, tensors by its names.

The opposite of `gguf_names`: rows of llama's q and k go from neighbouring pairs to halves, gpt2's
matrices from (out, in) to Hugging Face's (in, out).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.checkpoint.gguf_names import NAMES, full_names
from gristmill.data.gguf_file import open_gguf, value
from gristmill.errors import ArtifactError

Floats = npt.NDArray[np.float32]
TYPES = ("F32", "F16", "BF16")


def read_config(path: Path) -> dict[str, Any]:
    """Return config.json's fields of the model in a GGUF; raises ArtifactError."""
    reader = open_gguf(path)
    kind = value(reader, "general.architecture")
    if kind not in NAMES:
        raise ArtifactError(
            f"{path} has general.architecture {kind!r}; allowed: {', '.join(NAMES)}"
        )
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    ids = {
        f"{name}_token_id": value(reader, f"tokenizer.ggml.{name}_token_id")
        for name in ("bos", "eos")
    }
    vocabulary = next((t.shape[1] for t in reader.tensors if t.name == "token_embd.weight"), None)
    if vocabulary is None:
        raise ArtifactError(f"{path} has no token_embd.weight; give a GGUF of a whole model")
    shared = {"vocab_size": int(vocabulary), "tie_word_embeddings": tied, **ids}
    try:
        made = _llama(reader) if kind == "llama" else _gpt2(reader)
    except KeyError as error:
        raise ArtifactError(f"{path} lacks {error.args[0]}; convert the model again") from None
    return {"model_type": kind, **shared, **made}


def _need(reader: Any, key: str) -> Any:
    found = value(reader, key)
    if found is None:
        raise KeyError(key)
    return found


def _llama(reader: Any) -> dict[str, Any]:
    heads = _need(reader, "llama.attention.head_count")
    width = _need(reader, "llama.embedding_length")
    scaling = value(reader, "llama.rope.scaling.type", "none")
    if any(tensor.name == "rope_freqs.weight" for tensor in reader.tensors):
        scaling = "llama3"
    return {
        "hidden_size": width,
        "intermediate_size": _need(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _need(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value(reader, "llama.attention.head_count_kv", heads),
        "head_dim": value(reader, "llama.attention.key_length", width // heads),
        "rms_norm_eps": _decimal(_need(reader, "llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": value(reader, "llama.rope.freq_base", 10000.0),
        "max_position_embeddings": _need(reader, "llama.context_length"),
        # said in Hugging Face's words, so that one place decides what a model here can do
        "rope_scaling": None if scaling == "none" else {"rope_type": scaling},
    }


def _gpt2(reader: Any) -> dict[str, Any]:
    return {
        "n_embd": _need(reader, "gpt2.embedding_length"),
        "n_layer": _need(reader, "gpt2.block_count"),
        "n_head": _need(reader, "gpt2.attention.head_count"),
        "n_inner": _need(reader, "gpt2.feed_forward_length"),
        "n_positions": _need(reader, "gpt2.context_length"),
        "layer_norm_epsilon": _decimal(_need(reader, "gpt2.attention.layer_norm_epsilon")),
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
        state[names[tensor.name]] = _turned(tensor.name, weight, kind, config)
    return state


def _turned(name: str, weight: Floats, kind: str, config: Any) -> Floats:
    part = name.split(".")[-2]
    if kind == "gpt2":
        inner = name.startswith("blk.") and weight.ndim == 2
        return np.ascontiguousarray(weight.T) if inner else weight
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    return unpermute(weight, heads[part]) if part in heads else weight


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
