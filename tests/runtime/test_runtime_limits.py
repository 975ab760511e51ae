"""What the kernels cannot run is refused when the model is made, not at its first token."""

from __future__ import annotations

import ctypes as ct
import math
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rewritten import rewrite
from tiny import Shape, hf_config, random_tensors, write_model

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")

SHAPE = Shape(vocab=300, hidden=8, intermediate=8, layers=1, heads=2, kv_heads=1, head_dim=4)
ROOT = Path(__file__).parents[2]

# key of the configuration, key of the file, struct format, value that is refused, what is allowed
ROTATION = ("rope_theta", "llama.rope.freq_base", "f")
EPSILON = ("rms_norm_eps", "llama.attention.layer_norm_rms_epsilon", "f")
CONTEXT = ("max_position_embeddings", "llama.context_length", "I")
REFUSED = [
    *((*ROTATION, x, "rotation.*from 1 on") for x in (-1.0, 0.0, 1e-38, 0.5, math.inf, math.nan)),
    *((*EPSILON, x, "epsilon.*above 0") for x in (-1e-5, 0.0, math.inf, math.nan)),
    (*CONTEXT, 2**20 + 1, "at most 1048576"),
]


def from_tensors(shape: Shape, **changed: Any) -> Any:
    config = hf_config(shape, None) | changed
    tensors = {name: _C.from_numpy(value) for name, value in random_tensors(shape, 1).items()}
    return _C.Model.from_tensors(config, tensors)


def patched(folder: Path, key: str, form: str, value: float) -> Path:
    """A file with one number of the metadata replaced."""
    path = write_model(folder, SHAPE)
    data = bytearray(path.read_bytes())
    at = data.index(key.encode()) + len(key) + 4
    data[at : at + 4] = struct.pack("<" + form, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("name", "key", "form", "value", "reason"), REFUSED)
def test_a_configuration_out_of_range_is_refused(
    name: str, key: str, form: str, value: float, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=reason):
        from_tensors(SHAPE, **{name: value})
    with pytest.raises(ValueError, match=reason):
        _C.Model(str(patched(tmp_path, key, form, value)), False)


@pytest.mark.parametrize(
    ("key", "form", "value"),
    [("llama.rope.freq_base", "f", 1.0), ("llama.context_length", "I", 2**20)],
)
def test_the_last_allowed_number_runs(key: str, form: str, value: float, tmp_path: Path) -> None:
    model = _C.Model(str(patched(tmp_path, key, form, value)), False)
    assert np.isfinite(_C.Session(model, 4).eval_all([1, 2, 3])).all()


FACTOR, LINEAR, KIND = (
    f"llama.rope.{k}" for k in ("scaling.factor", "scale_linear", "scaling.type")
)


@pytest.mark.parametrize("values", [{FACTOR: 4.0}, {LINEAR: 4.0}, {FACTOR: 2.0, KIND: "linear"}])
def test_scaled_positions_are_refused(values: dict[str, float | str], tmp_path: Path) -> None:
    """A factor without a type is linear scaling to llama.cpp: 9 nats away from no scaling."""
    with pytest.raises(ValueError, match="scaled rotation"):
        _C.Model(str(rewrite(write_model(tmp_path, SHAPE), tmp_path / "s.gguf", values=values)))


@pytest.mark.parametrize("values", [{FACTOR: 1.0}, {LINEAR: 0.0}, {FACTOR: 4.0, KIND: "none"}])
def test_a_factor_that_scales_nothing_runs(values: dict[str, float | str], tmp_path: Path) -> None:
    path = write_model(tmp_path, SHAPE)
    scaled = _C.Model(str(rewrite(path, tmp_path / "s.gguf", values=values)))
    ids, plain = [1, 2, 3], _C.Model(str(path))
    assert (_C.Session(scaled, 4).eval_all(ids) == _C.Session(plain, 4).eval_all(ids)).all()


@pytest.mark.parametrize("head_dim", [3, 258])
def test_a_head_dimension_without_kernel_is_refused(head_dim: int, tmp_path: Path) -> None:
    shape = Shape(**(vars(SHAPE) | {"head_dim": head_dim}))
    with pytest.raises(ValueError, match=rf"is {head_dim}, even numbers from 2 to 256"):
        from_tensors(shape)
    if head_dim % 2 == 0:  # the export refuses odd ones itself
        with pytest.raises(ValueError, match=rf"is {head_dim}, even numbers from 2 to 256"):
            _C.Model(str(write_model(tmp_path, shape)), True)


def test_the_largest_head_dimension_runs() -> None:
    model = from_tensors(Shape(**(vars(SHAPE) | {"head_dim": 256})))
    assert np.isfinite(_C.Session(model, 4).eval_all([1, 2, 3])).all()


def every_second(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    wide = np.zeros((*value.shape[:-1], 2 * value.shape[-1]), np.float32)
    wide[..., ::2] = value
    return wide[..., ::2]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.norm.weight", every_second),
        ("model.layers.0.input_layernorm.weight", every_second),
        ("model.embed_tokens.weight", every_second),
        ("model.embed_tokens.weight", np.asfortranarray),
        ("model.layers.0.mlp.up_proj.weight", np.asfortranarray),
    ],
)
def test_weights_with_strides_are_refused(name: str, change: Any) -> None:
    config, tensors = hf_config(SHAPE, None), random_tensors(SHAPE, 1)
    arrays = {n: _C.from_numpy(change(t) if n == name else t) for n, t in tensors.items()}
    with pytest.raises(ValueError, match=rf"{name} has stride \d+.*contiguous"):
        _C.Model.from_tensors(config, arrays)


def test_rows_may_have_gaps() -> None:
    tensors = random_tensors(SHAPE, 1)
    want = _C.Session(from_tensors(SHAPE), 8).eval_all([1, 2, 3]).tobytes()
    arrays = {}
    for name, value in tensors.items():
        if value.ndim == 2:
            wide = np.full((value.shape[0], value.shape[1] + 3), np.nan, np.float32)
            wide[:, : value.shape[1]] = value
            value = wide[:, : value.shape[1]]
        arrays[name] = _C.from_numpy(value)
    live = _C.Model.from_tensors(hf_config(SHAPE, None), arrays)
    assert _C.Session(live, 8).eval_all([1, 2, 3]).tobytes() == want


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_every_f16_widens_to_the_bits_numpy_gives(tmp_path: Path) -> None:
    source, library = tmp_path / "f16.cpp", tmp_path / "f16.so"
    source.write_text(
        '#include "f16.h"\n'
        'extern "C" void widen(const uint16_t* in, float* out) {\n'
        "  for (int i = 0; i < 65536; ++i) out[i] = gristmill::runtime::f16_to_f32(in[i]);\n}\n"
    )
    flags = ["-std=c++20", "-O3", "-shared", "-fPIC", f"-I{ROOT}/csrc/runtime"]
    subprocess.run(["g++", *flags, str(source), "-o", str(library)], check=True)
    every = np.arange(65536, dtype=np.uint16)
    got = np.empty(65536, np.float32)
    ct.CDLL(str(library)).widen(ct.c_void_p(every.ctypes.data), ct.c_void_p(got.ctypes.data))
    want = every.view(np.float16).astype(np.float32)
    quiet = np.where(np.isnan(want), 0x400000, 0).astype(np.uint32)  # a processor may set that bit
    np.testing.assert_array_equal(got.view(np.uint32) | quiet, want.view(np.uint32) | quiet)
