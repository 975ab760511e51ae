"""gpt2 as a file: the engine's bytes, the twin's values, foreign layouts, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_gpt2
from rewritten import rewrite
from test_engine_parity import agree
from tiny_gpt2 import Gpt2Shape, twin, write_folder, write_model

_C = pytest.importorskip("gristmill._C")
gguf = pytest.importorskip("gguf")
gm = pytest.importorskip("gristmill")

from gristmill.checkpoint.gguf import write_gguf  # noqa: E402
from gristmill.errors import DataError  # noqa: E402

SHAPES = {
    "usual": Gpt2Shape(),
    "heads of 80": Gpt2Shape(n_embd=160, n_head=2, n_inner=77, vocab=333),
    "odd heads": Gpt2Shape(n_embd=21, n_head=3, n_layer=1, n_inner=17),
}


@pytest.mark.parametrize("name", SHAPES)
def test_engine_and_runtime_agree(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    agree(tmp_path, write_model(tmp_path, shape), shape.vocab)


def test_the_exact_gelu_runs_live_and_has_no_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"activation_function": "gelu"}
    (folder / "config.json").write_text(json.dumps(config))
    model = gm.models.from_pretrained(folder)
    ids = np.arange(20, dtype=np.int32)
    live = _C.Model.from_tensors(model.config.to_dict(), dict(model.tensors()))
    with gm.no_grad():
        engine = model(ids[None]).numpy()[0]
    assert _C.Session(live, 20).eval_all(ids.tolist()).tobytes() == engine.tobytes()
    with pytest.raises(DataError, match="gelu_new"):
        write_gguf(folder, tmp_path / "m.gguf")


def test_generate_is_greedy_on_the_same_logits(tmp_path: Path) -> None:
    write_folder(tmp_path)
    model = gm.models.from_pretrained(tmp_path)
    ids = model.generate([5, 6, 7, 8], max_new_tokens=12)
    with gm.no_grad():
        logits = model(np.array([ids], np.int32)).numpy()[0]
    assert [int(i) for i in logits[3:-1].argmax(-1)] == ids[4:]


def test_published_folders_leave_the_prefix_out_and_hold_the_mask(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    want = write_model(tmp_path / "a").read_bytes()
    folder = write_folder(tmp_path / "b")
    tensors = load_file(folder / "model.safetensors")
    published = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    published["h.0.attn.bias"] = np.tril(np.ones((1, 1, 128, 128), np.float32))
    save_file(published, folder / "model.safetensors")
    write_gguf(folder, folder / "model.gguf")
    assert (folder / "model.gguf").read_bytes() == want


def test_a_foreign_f16_file_runs_on_its_exact_weights(tmp_path: Path) -> None:
    shape = Gpt2Shape()
    made = write_model(tmp_path, shape)
    model = _C.Model(str(rewrite(made, tmp_path / "f16.gguf", f16=True)), True)
    weights = {
        name: value.astype(np.float16).astype(np.float32) if value.ndim > 1 else value
        for name, value in tiny_gpt2.random_tensors(shape, 7).items()
    }
    ids = list(range(60))
    want = twin(weights, shape, ids)
    assert abs(_C.Session(model, 64).eval_all(ids) - want).max() <= 1.5e-5 * abs(want).max()


def test_bf16_rounds_matrices_and_keeps_positions(tmp_path: Path) -> None:
    path = write_model(tmp_path, dtype="bf16")
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}
    assert kinds["position_embd.weight"] == "F32"
    assert kinds["blk.0.attn_qkv.weight"] == kinds["token_embd.weight"] == "BF16"
    assert kinds["blk.1.ffn_up.bias"] == kinds["output_norm.bias"] == "F32"
    shape = Gpt2Shape()

    def rounded(name: str, value: np.ndarray) -> np.ndarray:
        if value.ndim < 2 or "wpe" in name:
            return value
        bits = value.view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
        return bits.astype(np.uint32).view(np.float32)

    weights = {n: rounded(n, v) for n, v in tiny_gpt2.random_tensors(shape, 7).items()}
    want = twin(weights, shape, list(range(60)))
    got = _C.Session(_C.Model(str(path), True), 64).eval_all(list(range(60)))
    assert abs(got - want).max() <= 1.5e-5 * abs(want).max()


def test_every_cut_of_the_file_is_refused(tmp_path: Path) -> None:
    data = write_model(tmp_path, SHAPES["odd heads"]).read_bytes()
    path = tmp_path / "cut.gguf"
    rng = np.random.default_rng(2)
    for size in sorted({*rng.integers(0, len(data), 60).tolist(), len(data) - 1, 0, 24}):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"\w"):
            _C.Model(str(path), True)


def test_any_changed_byte_of_the_header_runs_or_is_refused(tmp_path: Path) -> None:
    """Digests off: whatever the numbers say, there is an answer or a message, never a crash."""
    data = write_model(tmp_path, SHAPES["odd heads"]).read_bytes()
    path = tmp_path / "changed.gguf"
    rng = np.random.default_rng(3)
    for at in rng.integers(0, 30_000, 400).tolist():
        changed = bytearray(data)
        changed[at % len(data)] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            model = _C.Model(str(path), False)
            _C.Session(model, 1).eval([1])
        except (ValueError, MemoryError) as error:
            assert str(error)
