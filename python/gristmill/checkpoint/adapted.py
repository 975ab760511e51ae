"""A deployed GGUF opened with an adapter: W + s B A in place of every adapted matrix.

The sum is computed once, by the same product and in the same order as in merging, on a private
copy; the file and its digest stay as they are. All other weights are still the mapped file's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.checkpoint.gguf_names import NAMES, full_names, turn_of
from gristmill.checkpoint.gguf_source import read_config, widen
from gristmill.data.gguf_file import open_gguf
from gristmill.errors import ArtifactError
from gristmill.models.adapters import PREFIX, WEIGHTS, read_adapter
from gristmill.models.architectures import config_from_dict
from gristmill.models.loading import read_tensors

Floats = npt.NDArray[np.float32]
A, B = ".lora_A.weight", ".lora_B.weight"


def open_adapted(path: Path, folder: Path, verify: bool = True) -> Any:
    """Return the `_C.Model` of a GGUF with the adapter in `folder` (as peft writes it) put in.

    Raises ArtifactError where file or folder is damaged, or the one is not of the other.
    """
    from gristmill import _C

    arrays = {name: _C.from_numpy(value) for name, value in replaced_tensors(path, folder).items()}
    try:
        return _C.Model(str(path), verify, arrays)
    except ValueError as error:
        raise ArtifactError(f"cannot load {path} with {folder}: {error}") from None


def replaced_tensors(path: Path, folder: Path) -> dict[str, Floats]:
    """Return what the adapter changes, by GGUF's names and laid out as the file has it."""
    adapter, state = read_adapter(folder), read_tensors(folder / WEIGHTS)
    given = read_config(path)
    kind, config = str(given["model_type"]), config_from_dict(given)
    names = full_names(NAMES[kind], config.num_hidden_layers, tied=False)
    stored = {tensor.name: tensor for tensor in open_gguf(path).tensors}
    turn, scale = turn_of(kind, config), adapter.alpha / adapter.rank
    out = {}
    for key in sorted(state):
        if key.endswith(B) and key.removesuffix(B) + A in state:
            continue  # taken with its A
        ours = key.removeprefix(PREFIX)
        theirs = names.get(ours.removesuffix(A) + ".weight" if key.endswith(A) else ours, "")
        a, b = state[key], state.get(key.removesuffix(A) + B)
        try:
            if not key.startswith(PREFIX) or theirs not in stored:
                raise ValueError("no such tensor")
            if not key.endswith(A):  # learned as a whole
                out[theirs] = np.ascontiguousarray(turn(theirs, a))
                continue
            base = widen(path, stored[theirs])
            if b is None or a.shape != (len(a), base.shape[1]) or b.shape != (len(base), len(a)):
                raise ValueError(f"A {a.shape}, B {None if b is None else b.shape}, W {base.shape}")
            rows = turn(theirs, b) if kind == "llama" else b  # gpt2's matrices alone are turned
            out[theirs] = merge(base, a, rows, scale)
        except ValueError as error:
            raise ArtifactError(
                f"{folder / WEIGHTS}: {key} does not fit {path} ({error}); give the model it was "
                "trained on"
            ) from None
    return out


def merge(base: Floats, a: Floats, b: Floats, scale: float) -> Floats:
    """Return base (out, in) + scale b (out, r) a (r, in); the bits of nn.lora's `merged`."""
    from gristmill import _C
    from gristmill.ops.matmul import into

    out = _C.empty(base.shape)
    _C.elementwise(out, _C.from_numpy(base), None, "copy", 0.0)
    scaled = _C.empty(b.shape)
    _C.elementwise(scaled, _C.from_numpy(np.ascontiguousarray(b)), None, "mul", scale)
    into(out.accumulating(), scaled, _C.from_numpy(np.ascontiguousarray(a)), "float32")
    return np.array(out.numpy())
