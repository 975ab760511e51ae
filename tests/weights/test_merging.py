"""`gristmill merge` and `serve --adapter`: the model with its adapter, as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")

from foreign import TEXTS, foreign_folder, foreign_gpt2

import gristmill as gm
from gristmill import _C
from gristmill.checkpoint.gguf import write_gguf
from gristmill.checkpoint.merging import merge_gguf
from gristmill.checkpoint.selftest import PROMPTS_KEY
from gristmill.cli import main
from gristmill.models import from_pretrained
from gristmill.models.adapters import add_adapter
from gristmill.models.saving import write_adapter
from gristmill.nn.lora import lora_layers

IDS = np.array([[1, 5, 9, 60, 100, 200]], np.int32)


@pytest.fixture(params=["llama", "gpt2"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A folder with its tokenizer, and an adapter that has learned something."""
    folder = {"llama": foreign_folder, "gpt2": foreign_gpt2}[request.param](tmp_path / "m")
    model = from_pretrained(folder)
    add_adapter(model, 4, 8.0, targets=["all-linear"])
    rng = np.random.default_rng(5)
    for _, layer in lora_layers(model):
        b = layer.lora_B.weight
        b.copy_(0.1 * rng.standard_normal(b.shape))
    write_adapter(model, tmp_path / "a")
    return folder, tmp_path / "a"


def logits(folder: Path) -> np.ndarray:
    with gm.no_grad():
        return from_pretrained(folder)(IDS).numpy()[0].copy()


def test_merge_writes_a_whole_folder(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder, adapter = pair
    assert main(["merge", str(folder), str(adapter), str(tmp_path / "out")]) == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {p.name for p in folder.iterdir()} and "adapter" not in names
    model = from_pretrained(folder)
    from gristmill.models.adapters import load_adapter

    load_adapter(model, adapter)
    with gm.no_grad():
        unmerged = model(IDS).numpy()[0]
    got = logits(tmp_path / "out")
    # two layers of sums of at most 128 products: a thousand roundings of values of size 1
    assert np.abs(got - unmerged).max() <= 1000 * 2.0**-24 * max(1, np.abs(unmerged).max())
    assert np.abs(got - logits(folder)).max() > 0.01


def test_a_merged_gguf_is_the_merged_folder(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder, adapter = pair
    given = {"gristmill.lineage": "{}", PROMPTS_KEY: ["a"], "gristmill.selftest.ids": ["[1]"]}
    write_gguf(folder, tmp_path / "m.gguf", extra=given)
    merge_gguf(tmp_path / "m.gguf", adapter, tmp_path / "merged.gguf")
    model = _C.Model(str(tmp_path / "merged.gguf"), True)  # every digest checked
    main(["merge", str(folder), str(adapter), str(tmp_path / "out")])
    got = _C.Session(model, 8).eval_all(IDS[0].tolist())
    assert np.array_equal(got, logits(tmp_path / "out"))
    before = _C.Model(str(tmp_path / "m.gguf"), True)
    text = TEXTS[0].encode()
    assert model.tokenize(text, True) == before.tokenize(text, True)
    assert model.eos_id == before.eos_id
    gone = set(before.metadata) - set(model.metadata)
    assert gone == {PROMPTS_KEY, "gristmill.selftest.ids"}
    assert set(model.metadata) - set(before.metadata) == {"gristmill.adapter"}
    assert model.metadata["gristmill.lineage"] == "{}"


def test_refusals(pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, adapter = pair
    (tmp_path / "out").mkdir()
    assert main(["merge", str(folder), str(adapter), str(tmp_path / "out")]) == 2
    assert "exists; name another" in capsys.readouterr().err
    assert main(["merge", str(folder), str(folder), str(tmp_path / "new")]) == 2
    assert "is no adapter" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    other = foreign_folder(tmp_path / "other", hidden_size=64)
    assert main(["merge", str(other), str(adapter), str(tmp_path / "new")]) == 2
    assert "not fit" in (said := capsys.readouterr().err) or "give the model" in said


def test_serve_adds_an_adapter(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi")
    from gristmill.serving import cli

    folder, adapter = pair
    write_gguf(folder, tmp_path / "m.gguf")
    merge_gguf(tmp_path / "m.gguf", adapter, tmp_path / "merged.gguf")
    seen = {}

    def served(runtime, path, args):  # what serve does from here on has its own tests
        seen["digest"] = runtime.model.digest
        return 0

    monkeypatch.setattr(cli, "serve_runtime", served)
    assert main(["serve", str(tmp_path / "m.gguf"), "--adapter", str(adapter)]) == 0
    assert seen["digest"] == _C.Model(str(tmp_path / "merged.gguf"), True).digest
