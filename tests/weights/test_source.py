"""Models given as a folder or a GGUF: the same tensors, and what cannot be taken is a message."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")

import gguf
from foreign import edit_json, foreign_folder, foreign_gpt2
from safetensors.numpy import load_file, save, save_file

from gristmill.checkpoint.gguf import write_gguf
from gristmill.checkpoint.source import digests, open_source
from gristmill.errors import ArtifactError, ConfigError
from gristmill.training.given import check
from gristmill.training.settings import DesignConfig

DESIGN = DesignConfig(context=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return foreign_folder(tmp_path / "m")


def bf16(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cut to the upper 16 bits: exactly what bfloat16 can hold."""
    return {k: (w.view(np.uint32) >> 16 << 16).view(np.float32) for k, w in weights.items()}


def write_bf16(path: Path, weights: dict[str, np.ndarray]) -> None:
    """NumPy has no bfloat16, so the file is written by its format: length, JSON, bytes."""
    header, data = {}, b""
    for name, w in weights.items():
        half = (w.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": w.shape, "data_offsets": [len(data), 0]}
        data += half
        header[name]["data_offsets"][1] = len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_folder_in_every_type(folder: Path, dtype: str) -> None:
    wanted = load_file(folder / "model.safetensors")
    if dtype == "F16":
        save_file(
            {k: w.astype(np.float16) for k, w in wanted.items()}, folder / "model.safetensors"
        )
        wanted = {k: w.astype(np.float16).astype(np.float32) for k, w in wanted.items()}
    if dtype == "BF16":
        wanted = bf16(wanted)
        write_bf16(folder / "model.safetensors", wanted)
    got, left = open_source(folder).tensors()
    assert left == [] and got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert np.array_equal(got[name], array), name


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_gguf_is_the_folder_it_was_made_of(
    folder: Path, tmp_path: Path, dtype: str, kind: str
) -> None:
    """Two layers, one key head for two query heads: q and k are permuted by other numbers."""
    path = tmp_path / "m.gguf"
    if kind == "gpt2":
        folder = foreign_gpt2(tmp_path / "g")
    weights = bf16(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").write_bytes(save(weights))
    write_gguf(folder, path, dtype=dtype)
    got, _ = open_source(path).tensors()
    for name, array in weights.items():
        assert np.array_equal(got[name], array), name
    mine = open_source(path).config
    theirs = json.loads((folder / "config.json").read_text())
    silent = {"rope_scaling", "n_inner"}  # null in config.json: the default is meant
    wrong = {k: (v, theirs[k]) for k, v in mine.items() if k not in silent and v != theirs[k]}
    assert not wrong


def test_half_precision_gguf(folder: Path, tmp_path: Path) -> None:
    """The writer knows no f16, llama.cpp's does: rewritten tensor by tensor."""
    write_gguf(folder, tmp_path / "m.gguf")
    rewrite(tmp_path / "m.gguf", tmp_path / "h.gguf", np.float16)
    wide, half = (open_source(tmp_path / n).tensors()[0] for n in ("m.gguf", "h.gguf"))
    for name, array in wide.items():
        kept = array.astype(np.float16).astype(np.float32) if array.ndim > 1 else array
        assert np.array_equal(half[name], kept), name


def rewrite(source: Path, target: Path, dtype: type, quantize: bool = False) -> None:
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for key, field in reader.fields.items():
        if key.startswith("llama.") or key == "tokenizer.ggml.eos_token_id":
            kind = gguf.GGUFValueType
            add = writer.add_float32 if field.types[0] == kind.FLOAT32 else writer.add_uint32
            add(key, field.contents())
    for tensor in reader.tensors:
        data, kind = np.asarray(tensor.data), None
        if quantize and data.ndim > 1 and data.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            data = gguf.quants.quantize(data, kind)
        elif data.ndim > 1:
            data = data.astype(dtype)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_quantized_gguf_is_refused(folder: Path, tmp_path: Path) -> None:
    write_gguf(folder, tmp_path / "m.gguf")
    rewrite(tmp_path / "m.gguf", tmp_path / "q.gguf", np.float32, quantize=True)
    with pytest.raises(ArtifactError, match="Q8_0; allowed: F32, F16, BF16"):
        open_source(tmp_path / "q.gguf").tensors()


def _only(name: str):
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / name)

    return change


SPOILED = {
    "pickle": (_only("pytorch_model.bin"), "a pickle.*allowed.*convert"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no model\.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "no saved model"),
    "other architecture": (
        lambda f: edit_json(f / "config.json", model_type="mamba"), "'mamba' given, known are"
    ),
    "scaled positions": (
        lambda f: edit_json(f / "config.json", rope_scaling={"rope_type": "yarn", "factor": 4}),
        "rope_scaling",
    ),
    "damaged config": (lambda f: (f / "config.json").write_text("{"), "not JSON"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"no tokenizer\.json"),
    "another tokenizer": (
        lambda f: edit_json(f / "config.json", vocab_size=50257), "285 tokens and the model 50,257"
    ),
    "foreign pieces": (
        lambda f: edit_json(f / "tokenizer.json", pre_tokenizer={"type": "Metaspace",
                            "replacement": "_", "prepend_scheme": "always"}),
        r"tokenizer\.json.*Metaspace.*give a model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_what_cannot_be_taken_is_said(folder: Path, name: str) -> None:
    check(folder, DESIGN)  # before
    change, said = SPOILED[name]
    change(folder)
    with pytest.raises(ArtifactError, match=said):
        check(folder, DESIGN)


def test_what_could_not_be_deployed_is_said_before_training(tmp_path: Path) -> None:
    folder = foreign_gpt2(tmp_path / "g")
    check(folder, DESIGN)
    edit_json(folder / "config.json", activation_function="gelu")
    with pytest.raises(ArtifactError, match=r"config\.json: activation_function is 'gelu', GGUF"):
        check(folder, DESIGN)
    edit_json(folder / "config.json", activation_function="gelu_new", bos_token_id=50256)
    with pytest.raises(ArtifactError, match=r"config\.json: bos_token_id is 50256"):
        check(folder, DESIGN)


def test_damaged_weights(folder: Path, tmp_path: Path) -> None:
    write_gguf(folder, tmp_path / "m.gguf")
    for path in (folder / "model.safetensors", tmp_path / "m.gguf"):
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged"):
        open_source(folder).tensors()
    with pytest.raises(ArtifactError, match=r"m\.gguf is damaged"):
        open_source(tmp_path / "m.gguf").tensors()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent", "no such file.*downloads none"),
        ("m.bin", "a pickle"),
        ("m.txt", "given; allowed"),
    ],
)
def test_paths_that_are_no_model(tmp_path: Path, name: str, said: str) -> None:
    if name != "absent":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtifactError, match=said):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("key", "value", "theirs"),
    [("depth", 3, 2), ("hidden_size", 64, 32), ("heads", 4, 2), ("rope_theta", 5e5, 10000.0)],
)
def test_a_shape_that_disagrees(folder: Path, key: str, value: float, theirs: float) -> None:
    check(folder, DesignConfig(context=32, **{key: theirs}))
    with pytest.raises(ConfigError) as caught:
        check(folder, DesignConfig(context=32, **{key: value}))
    for part in (f"design.{key} = {value}", str(folder), f"{theirs}", "take design"):
        assert part in str(caught.value)


def test_a_context_longer_than_the_models(folder: Path) -> None:
    assert check(folder, DesignConfig(context=64))["max_position_embeddings"] == 64
    with pytest.raises(ConfigError, match=r"design\.context = 65 given.*64 positions"):
        check(folder, DesignConfig(context=65))


def test_digests_follow_the_bytes(folder: Path) -> None:
    before = {part: digests(folder, part) for part in ("tokenizer", "shape", "weights")}
    edit_json(folder / "tokenizer.json", truncation=None, padding=None, version="1.1")
    assert digests(folder, "tokenizer") != before["tokenizer"]
    assert digests(folder, "shape") == before["shape"]
    assert digests(folder, "weights") == before["weights"]
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert digests(folder, "weights") != before["weights"]
