"""A model file as another program would write it, with changed metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt


def rewrite(
    source: Path,
    target: Path,
    bos: int | None = None,
    f16: bool = False,
    drop: str | None = None,
    pre: str | None = None,
    factors: npt.NDArray[np.float32] | None = None,
    values: Mapping[str, str | float] | None = None,
) -> Path:
    """Copy the model without our keys.

    bos: ask for this id before every prompt; f16: matrices rounded to that type; drop: a key of the
    tokenizer that is left out; pre: another name of its pieces; factors: of the rotation's
    frequencies, as Llama 3.2 has them; values: further keys, texts or numbers.
    """
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        own = field.name.startswith(("GGUF.", "gristmill.", "general.architecture"))
        if own or (bos is not None and field.name == "tokenizer.ggml.add_bos_token"):
            continue
        if field.name == f"tokenizer.ggml.{drop}" or (pre and field.name == "tokenizer.ggml.pre"):
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind, sub_type=field.types[-1])
    if bos is not None:
        writer.add_add_bos_token(True)
        writer.add_bos_token_id(bos)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    for key, value in (values or {}).items():
        text = isinstance(value, str)
        writer.add_key_value(
            key, value, gguf.GGUFValueType.STRING if text else gguf.GGUFValueType.FLOAT32
        )
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    for t in reader.tensors:
        rounded = f16 and t.data.ndim > 1
        writer.add_tensor(t.name, t.data.astype(np.float16) if rounded else t.data.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
