"""The deploy stage on a tiny random model: its files, its gates, and that it is reproducible."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import TEXT, write_folder

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")
shards = pytest.importorskip("gristmill.data.shards")

from gristmill.artifacts import Result, StageContext, write_json  # noqa: E402
from gristmill.serving.fim import fim_tokens  # noqa: E402
from gristmill.serving.settings import DeployConfig  # noqa: E402
from gristmill.stages import deploy  # noqa: E402


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished folders of save, split and evaluate."""
    from tokenizers import Tokenizer

    root = tmp_path_factory.mktemp("stages")
    folders = {name: root / name for name in ("split", "save", "evaluate")}
    write_folder(folders["save"] / "model")
    for name, folder in folders.items():
        folder.mkdir(exist_ok=True)
        facts = {"key": name * 2, "digest": name * 3, "depends": {"inputs": {"x": "y"}}}
        write_json(folder / "manifest.json", facts)
    tokenizer = Tokenizer.from_file(str(folders["save"] / "model" / "tokenizer.json"))
    eos = tokenizer.token_to_id("<|endoftext|>")
    documents = [[*tokenizer.encode(text * 3).ids, eos] for text in TEXT * 3]
    shards.write_shard(folders["split"] / "val", (np.array(d) for d in documents), 331)
    write_json(folders["evaluate"] / "metrics.json", {"bits_per_byte": 1.5})
    return folders


def run(inputs: dict[str, Path], out: Path, dtype: str = "f32", *, fim_rate: float = 0.5) -> Result:
    out.mkdir()
    config: Any = SimpleNamespace(
        deploy=DeployConfig(dtype=dtype, selftest=3, selftest_tokens=5),
        project=SimpleNamespace(name="tiny"),
        train=SimpleNamespace(suffix_first=True, fim_rate=fim_rate),
    )
    return deploy.run(StageContext("deploy", out, inputs, config, seed=5))


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_files_and_gates(dtype: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(inputs, out, dtype)
    assert all(gate.passed for gate in result.gates), result.gates
    assert len(result.gates) == (2 if dtype == "f32" else 1)
    names = {p.name for p in out.iterdir()}
    cards = {"MODEL_CARD.md", "DATASHEET.md"}
    assert names == {"model.gguf", "selftest.json", "reference.json"} | cards
    model = _C.Model(str(out / "model.gguf"), True)
    meta = model.metadata
    assert meta["general.name"] == "tiny"
    assert json.loads(meta["gristmill.report"]) == {"metrics": {"bits_per_byte": 1.5}}
    assert json.loads(meta["gristmill.lineage"])["save"]["digest"] == "savesavesave"
    assert json.loads(meta["gristmill.reference"]) == json.loads(
        (out / "reference.json").read_text()
    )
    record = json.loads((out / "selftest.json").read_text())
    assert record["digest"] == model.digest
    assert [p["prompt"] for p in record["prompts"]] == meta["gristmill.selftest.prompts"]
    assert any("<|fim_middle|>" in p["prompt"] for p in record["prompts"])
    assert model.selftest() == record["compared"] == 3
    assert fim_tokens(meta) is not None


def test_a_model_not_trained_on_holes_is_not_offered_for_them(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Its tokenizer has the sentinels, but their vectors are as they were initialised."""
    result = run(inputs, tmp_path / "out", fim_rate=0.0)
    assert all(gate.passed for gate in result.gates), result.gates
    meta = _C.Model(str(tmp_path / "out" / "model.gguf"), True).metadata
    assert fim_tokens(meta) is None
    assert not [key for key in meta if "fim" in key]
    assert "<|fim_prefix|>" in meta["tokenizer.ggml.tokens"]
    record = json.loads((tmp_path / "out" / "selftest.json").read_text())
    assert not any("<|fim" in p["prompt"] for p in record["prompts"])


def test_the_same_inputs_give_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(inputs, tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_a_self_test_that_fails_is_a_failed_gate(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        deploy.selftest, "check_in_fresh_process", lambda path: (0, "prompt 1 differs")
    )
    result = run(inputs, tmp_path / "out")
    assert not result.gates[0].passed
    assert result.gates[0].value == "prompt 1 differs"
