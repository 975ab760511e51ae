"""What a deployed file carries: self-test vectors, references; no write leaves half a file."""

from __future__ import annotations

import ctypes as ct
import errno
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Shape, write_folder

_C = pytest.importorskip("gristmill._C")
gguf = pytest.importorskip("gguf")

from gristmill.checkpoint import reference, selftest  # noqa: E402
from gristmill.checkpoint.gguf import write_gguf  # noqa: E402
from gristmill.errors import ArtifactError, DataError, StorageError  # noqa: E402
from gristmill.serving.fim import fim_tokens  # noqa: E402

PROMPTS = ["def add(left", "<|fim_prefix|>for<|fim_suffix|>:\n<|fim_middle|>", "import os\n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("deployed"))


def deployed(
    folder: Path, path: Path, change: Callable[[dict[str, Any]], object] | None = None
) -> Path:
    """A GGUF with vectors; `change` may spoil the metadata before it is written."""
    write_gguf(folder, path)
    vectors = selftest.make_vectors(_C.Model(str(path), True), PROMPTS, 6, 1e-3)
    assert vectors
    assert all(v.ids and v.gap >= 1e-3 for v in vectors)
    extra: dict[str, Any] = dict(selftest.metadata(vectors))
    if change is not None:
        change(extra)
    write_gguf(folder, path, extra=extra)
    return path


def test_vectors_hold_in_this_and_in_a_fresh_process(folder: Path, tmp_path: Path) -> None:
    path = deployed(folder, tmp_path / "model.gguf")
    stored = _C.Model(str(path), True).metadata[selftest.PROMPTS_KEY]
    assert selftest.check(path) == len(stored)
    assert selftest.check_in_fresh_process(path) == (len(stored), "")


def wrong_token(extra: dict[str, Any]) -> None:
    ids = json.loads(extra[selftest.IDS_KEY][0])
    extra[selftest.IDS_KEY][0] = json.dumps([(ids[0] + 1) % 331, *ids[1:]])


SPOILED = {
    "another token": (wrong_token, "prompt 0 gives token"),
    "no ids": (lambda e: e.pop(selftest.IDS_KEY), "do not belong together"),
    "too few ids": (lambda e: e[selftest.IDS_KEY].pop(), "do not belong together"),
    "not a list": (lambda e: e[selftest.IDS_KEY].__setitem__(0, "12"), "no list of numbers"),
    "a word": (lambda e: e[selftest.IDS_KEY].__setitem__(0, "[1, x]"), "no list of numbers"),
    "negative": (lambda e: e[selftest.IDS_KEY].__setitem__(0, "[-1]"), "no list of numbers"),
    "cut": (lambda e: e[selftest.IDS_KEY].__setitem__(0, "[1, 2"), "no list of numbers"),
    "huge": (
        lambda e: e[selftest.IDS_KEY].__setitem__(0, "[99999999999999]"),
        "no list of numbers",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_wrong_vector_is_found(name: str, folder: Path, tmp_path: Path) -> None:
    change, reason = SPOILED[name]
    path = deployed(folder, tmp_path / "model.gguf", change)
    with pytest.raises(ArtifactError, match=reason):
        selftest.check(path)


def test_the_order_of_a_gap_is_psm_or_spm(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    library = ct.CDLL(_C.__file__)
    library.gristmill_fim_suffix_first.argtypes = [ct.c_void_p]
    for order, first in (("psm", 0), ("spm", 1), (None, 0)):
        write_gguf(folder, path, extra={} if order is None else {"gristmill.fim.order": order})
        model = ct.c_void_p()
        error = ct.create_string_buffer(struct.pack("=IIq320s", 336, 0, -1, b""), 336)
        assert library.gristmill_model_open(ct.byref(model), str(path).encode(), 1, error) == 0
        assert library.gristmill_fim_suffix_first(model) == first
        library.gristmill_model_close(model)
    write_gguf(folder, path, extra={"gristmill.fim.order": "mps"})
    with pytest.raises(ValueError, match="neither psm nor spm"):
        _C.Model(str(path), True)


def test_the_fresh_process_reports_why(folder: Path, tmp_path: Path) -> None:
    path = deployed(folder, tmp_path / "model.gguf", wrong_token)
    count, reason = selftest.check_in_fresh_process(path)
    assert count == 0
    assert "prompt 0 gives token" in reason


def test_a_close_choice_ends_a_vector(folder: Path, tmp_path: Path) -> None:
    write_gguf(folder, tmp_path / "m.gguf")
    model = _C.Model(str(tmp_path / "m.gguf"), True)
    assert selftest.make_vectors(model, PROMPTS, 6, 1e9) == []


def test_reference_distributions(folder: Path, tmp_path: Path) -> None:
    write_gguf(folder, tmp_path / "m.gguf")
    model = _C.Model(str(tmp_path / "m.gguf"), True)
    rng = np.random.default_rng(2)
    documents = [rng.integers(0, 300, n).tolist() for n in (5, 40, 127, 200, 3)]
    fim = fim_tokens(model.metadata)
    asked = reference.requests(documents, fim, 20, 7)
    assert asked == reference.requests(documents, fim, 20, 7)
    assert [kind for kind, _ in asked[:2]] == ["text", "hole"]
    assert all(reference.kind_of(prompt, fim) == kind for kind, prompt in asked)
    found = reference.measure(model, asked, 6, 7, 5)
    assert found == reference.measure(model, asked, 6, 7, 5)
    assert {name.partition(".")[2] for name in found} == {
        "answer_entropy", "answer_logprob", "answer_repeated_4grams", "prompt_entropy",
        "prompt_fallback_share", "prompt_nll", "prompt_non_ascii_share", "prompt_tokens",
        "prompt_unique_share",
    }  # fmt: skip
    assert found["text.prompt_tokens"]["n"] == found["hole.prompt_tokens"]["n"] == 20
    assert found["text.answer_entropy"]["n"] <= 3
    lengths = [float(len(prompt)) for kind, prompt in asked if kind == "text"]
    assert found["text.prompt_tokens"]["sample"] == sorted(lengths)
    assert 0 < found["text.prompt_entropy"]["mean"] < np.log(331)


def test_features_are_those_of_the_whole_pass(folder: Path, tmp_path: Path) -> None:
    """Prompt and answer in one evaluation: what the tokens were drawn from, at the last places."""
    write_gguf(folder, tmp_path / "m.gguf")
    model = _C.Model(str(tmp_path / "m.gguf"), True)
    ids = np.random.default_rng(3).integers(0, 300, 50).tolist()
    meter = reference.Meter(model, _C.Session(model, reference.window(model.n_ctx)))
    found = meter.features(ids[:40], ids[40:])
    log_p = reference.log_softmax(_C.Session(model, 64).eval_all(ids))
    assert found["prompt_nll"] == -log_p[np.arange(39), ids[1:40]].mean()
    assert found["answer_logprob"] == log_p[np.arange(39, 49), ids[40:]].mean()
    assert found["answer_repeated_4grams"] == 0.0
    assert meter.features(ids[:40], [5, 6, 7, 8] * 4)["answer_repeated_4grams"] == 1 - 4 / 13
    assert "answer_entropy" not in meter.features(ids, [])
    assert "prompt_nll" not in meter.features(ids[:1], [])
    assert meter.features([], ids) == {}


@pytest.mark.parametrize(
    "step", ["write_tensors_to_file", "write_kv_data_to_file", "replace", "fsync"]
)
def test_a_failed_write_keeps_the_old_file(
    step: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(folder, path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "replace":
        monkeypatch.setattr(Path, "replace", full)
    elif step == "fsync":
        monkeypatch.setattr("os.fsync", full)
    else:
        monkeypatch.setattr(gguf.GGUFWriter, step, full)
    with pytest.raises(StorageError, match="No space left"):
        write_gguf(folder, path, extra={"general.name": "new"})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


def edit_config(folder: Path, target: Path, **changes: object) -> Path:
    target.mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        (target / name).write_bytes((folder / name).read_bytes())
    config = json.loads((folder / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "bert"}, "model_type"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"num_hidden_layers": 1}, "unknown"),
        ({"tie_word_embeddings": False}, "lm_head"),
        ({"vocab_size": 20}, "eos_token_id is 326"),
    ],
)
def test_models_that_gguf_cannot_express_are_refused(
    changes: dict[str, object], reason: str, folder: Path, tmp_path: Path
) -> None:
    source = edit_config(folder, tmp_path / "hf", **changes)
    with pytest.raises(DataError, match=reason):
        write_gguf(source, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_missing_and_damaged_inputs_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config\.json"):
        write_gguf(tmp_path, tmp_path / "m.gguf")
    source = edit_config(folder, tmp_path / "hf")
    (source / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(DataError, match="safetensors"):
        write_gguf(source, tmp_path / "m.gguf")
    with pytest.raises(DataError, match="f16"):
        write_gguf(folder, tmp_path / "m.gguf", dtype="f16")


def test_writing_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_gguf(folder, tmp_path / name, dtype="bf16", extra={"gristmill.report": "{}"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_vocabulary_larger_than_the_tokenizer_is_filled(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, Shape(vocab=700))
    write_gguf(folder, tmp_path / "m.gguf")
    model = _C.Model(str(tmp_path / "m.gguf"), True)
    assert model.vocab_size == 700
    assert model.token_bytes(699) == b"[PAD699]"
