"""Stages 5 to 10 on a tiny model: files, gates, agreement between them, the count of openings."""

from __future__ import annotations

import json
import os
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gristmill._C")
pytest.importorskip("duckdb")
pytest.importorskip("pydantic")
pytest.importorskip("tokenizers")

from gristmill.artifacts import Result, StageContext, read_json, sha256_file, write_json
from gristmill.config import SaveConfig
from gristmill.data.document import DOCUMENT_SCHEMA, Document
from gristmill.data.shards import write_shard
from gristmill.data.table import read_table, write_table
from gristmill.data.tokenizer import train_tokenizer
from gristmill.errors import ArtifactError
from gristmill.evaluation.settings import EvaluateConfig
from gristmill.models.saving import recover
from gristmill.stages import design, evaluate, initialize, save, train, validate
from gristmill.training.settings import DesignConfig, InitializeConfig, TrainConfig, ValidateConfig

STEPS = 60
ORDER = (design, initialize, train, validate, save, evaluate)
CONFIG: Any = SimpleNamespace(
    design=DesignConfig(depth=1, hidden_size=32, context=64, batch=4, steps=STEPS),
    initialize=InitializeConfig(),
    train=TrainConfig(lr=5e-3, eval_every=20, eval_batches=2, checkpoint_every=20),
    validate=ValidateConfig(documents=5, stride=32, holes=3, max_tokens=12, bootstrap=100),
    save=SaveConfig(),
    evaluate=EvaluateConfig(
        documents=5, stride=32, holes=3, max_tokens=12, bootstrap=100, samples=6
    ),
)


def file(number: int) -> Document:
    text = "".join(
        f"def get_{name}(self, value={number}):\n    return self.{name}.get(value, {number})\n\n\n"
        for name in ("first", "second", "other", f"part{number}")
    )
    head = (f"{number:064x}", "src", f"f{number}.py", f"area{number % 2}", "MIT", "test")
    return Document(*head, len(text), 1, 2, "utf-8", text, number)


def write_split(folder: Path) -> Path:
    """A finished folder of stage split: 40 files to train on, 6 and 8 held out."""
    files = [file(n) for n in range(54)]
    parts = {"train": files[:40], "val": files[40:46], "test": files[46:]}
    tokenizer = train_tokenizer([d.text for d in parts["train"]], 300)
    folder.mkdir(parents=True)
    tokenizer.save(folder)
    for name, some in parts.items():
        ids = [[*tokenizer.encode(d.text), tokenizer.eos] for d in some]
        write_shard(folder / name, ids, tokenizer.vocab_size)
        schema = {**DOCUMENT_SCHEMA, "label_quality": "VARCHAR"}
        rows = [(*astuple(d), "good") for d in some]
        write_table(folder / name / "documents.parquet", schema, rows)
    write_json(folder / "manifest.json", {"digest": "d1"})
    return folder


def run(stage: Any, out: Path, inputs: dict[str, Path], config: Any = CONFIG) -> Result:
    out.mkdir(parents=True, exist_ok=True)
    name = stage.__name__.rsplit(".", 1)[-1]
    result: Result = stage.run(StageContext(name, out, inputs, config, 7))
    assert len(result.summary) <= 60, result.summary
    assert {"what", "why", "numbers"} <= set(result.report)
    json.dumps(result.report)  # plain values only
    for gate in result.gates:
        assert (out / gate.file).is_file()
    return result


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Result]]:
    """Folders and results of the stages, run one after the other."""
    root = tmp_path_factory.mktemp("run")
    folders, results = {"split": write_split(root / "split-1")}, {}
    for stage in ORDER:
        name = stage.__name__.rsplit(".", 1)[-1]
        out = root / f"{name}-1"
        results[name] = run(stage, out, folders)
        folders[name] = out
    return folders, results


Done = tuple[dict[str, Path], dict[str, Result]]


def test_gates_that_do_not_depend_on_how_good_the_model_is(done: Done) -> None:
    _, results = done
    for name in ("design", "initialize", "train", "save"):
        assert all(gate.passed for gate in results[name].gates), results[name].gates
    assert results["save"].gates[0].value == 0.0  # byte for byte, in another process
    (counted,) = [g for g in results["evaluate"].gates if g.name == "bytes counted"]
    assert counted.passed and counted.value == 5 * len(file(46).text)  # all test files are as long


def test_design_says_what_the_model_then_has(done: Done) -> None:
    from gristmill.models import from_pretrained

    folders, _ = done
    facts = read_json(folders["design"] / "design.json")
    model = from_pretrained(folders["initialize"] / "model")
    assert facts["steps"] == STEPS and facts["steps_from"] == "design.steps"
    assert facts["parameters"] == sum(p.size for p in model.parameters())
    assert model.config.eos_token_id == 0
    assert facts["tokens"] == STEPS * 4 * 64
    bits = read_json(folders["design"] / "baselines.json")["bits_per_byte"]
    rows = read_table(folders["design"] / "baselines.parquet", ["ngram", "bytes"])
    assert bits["byte 6-gram"] == pytest.approx(sum(r[0] for r in rows) / sum(r[1] for r in rows))


def test_training_says_what_memory_it_took(done: Done) -> None:
    folders, results = done
    facts = read_json(folders["train"] / "time.json")
    design = read_json(folders["design"] / "design.json")
    assert facts["memory_bytes_predicted"] == design["memory_bytes"]
    weights = 4 * 4 * design["parameters"]  # weights, gradients, two averages, all touched
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert weights < facts["peak_bytes"] <= memory
    assert "memory at most, whole process" in results["train"].report["numbers"]


def test_training_is_resumed_to_the_same_bits(done: Done, tmp_path: Path) -> None:
    folders, _ = done
    inputs = {name: folders[name] for name in ("split", "design", "initialize")}

    class Killed(Exception):
        pass

    def kill(message: str) -> None:
        if message.startswith("step 33/"):
            raise Killed

    tmp_path.joinpath("out").mkdir()
    with pytest.raises(Killed):
        train.run(StageContext("train", tmp_path / "out", inputs, CONFIG, 7, kill))
    run(train, tmp_path / "out", inputs)
    for name in ("last/model.safetensors", "best/model.safetensors", "last/training/state.json"):
        assert sha256_file(tmp_path / "out" / name) == sha256_file(folders["train"] / name), name
    rows = [json.loads(r) for r in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))


def test_a_kill_while_a_checkpoint_is_swapped_leaves_nothing(tmp_path: Path) -> None:
    """After the rename the old folder is still there; before it the new one is."""
    last = tmp_path / "last"
    old, new = tmp_path / ".last.old", tmp_path / ".last.new"
    for folder in (last, old):
        folder.mkdir()
        (folder / "config.json").write_text(folder.name)
    assert recover(last)
    assert [p.name for p in tmp_path.iterdir()] == ["last"]
    assert (last / "config.json").read_text() == "last"
    last.rename(old)
    new.mkdir()
    assert recover(last)
    assert [p.name for p in tmp_path.iterdir()] == ["last"]
    last.rename(new)
    assert not recover(last)
    assert not list(tmp_path.iterdir())


def test_validate_compares_on_the_same_files(done: Done) -> None:
    folders, _ = done
    verdict = read_json(folders["validate"] / "verdict.json")
    metrics = read_json(folders["validate"] / "metrics.json")
    assert verdict["chosen"] in ("best", "last")
    assert metrics["documents"] == 5
    figure = metrics["bits_per_byte"]
    assert figure["low"] <= figure["value"] <= figure["high"]
    assert verdict["overfitting"]["keys"]
    assert metrics["holes"]["all"]["holes"] == 9


def test_saved_folder_is_whole(done: Done) -> None:
    folders, _ = done
    names = {p.relative_to(folders["save"] / "model").as_posix()
             for p in (folders["save"] / "model").rglob("*") if p.is_file()}  # fmt: skip
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json",
        "training/state.json", "training/optimizer.safetensors",
    }  # fmt: skip
    chosen = read_json(folders["validate"] / "verdict.json")["chosen"]
    trained = folders["train"] / chosen / "model.safetensors"
    assert sha256_file(folders["save"] / "model/model.safetensors") == sha256_file(trained)


def test_report_of_the_test_is_complete(done: Done) -> None:
    folders, _ = done
    out = folders["evaluate"]
    metrics = read_json(out / "metrics.json")
    assert set(metrics["baselines"]) == {
        "byte 6-gram", "bz2 per file", "xz per file", "bz2 whole", "xz whole", "xz given train"
    }  # fmt: skip
    assert set(metrics["holes"]) == {"model", "cache n-gram", "longest-suffix copy"}
    assert set(metrics["holes"]["model"]) == {"line", "argument", "body", "all"}
    assert set(read_json(out / "slices.json")) == {"area", "length", "difficulty"}
    samples = read_json(out / "samples.json")
    assert [s["kind"] for s in samples] == ["line"] * 2 + ["argument"] * 2 + ["body"] * 2
    for s in samples:
        number = int(s["path"][1:-3])
        assert s["prefix"] + s["truth"] + s["suffix"] in file(number).text
    columns = ["completer", "truth", "completion", "exact", "parses"]
    rows = read_table(out / "holes.parquet", columns)
    assert len(rows) == 3 * 9
    assert all(parses is not None for name, *_, parses in rows if name == "model")
    rows = read_table(out / "documents.parquet", ["bits", "bytes", "xz"])
    per_byte = sum(row[0] for row in rows) / sum(row[1] for row in rows)
    assert per_byte == pytest.approx(metrics["bits_per_byte"]["value"])
    record = read_json(out / "access.json")
    assert len(record.pop("documents")) == 64
    assert record == {"split": "d1", "here": 1, "earlier": [], "opened": 1}


def test_openings_are_counted(done: Done) -> None:
    folders, _ = done
    inputs = {name: folders[name] for name in ("split", "save")}
    manifest = {
        "key": "k1", "begun": "2026-01-01", "summary": "s", "depends": {"inputs": {"split": "d1"}}
    }  # fmt: skip
    write_json(folders["evaluate"] / "manifest.json", manifest)
    other = folders["split"].parent / "evaluate-other"
    other.mkdir()
    write_json(other / "manifest.json", manifest | {"depends": {"inputs": {"split": "d2"}}})
    out = folders["split"].parent / "again"
    result = run(evaluate, out, inputs)
    assert read_json(out / "access.json")["opened"] == 2
    assert read_json(out / "access.json")["earlier"][0]["key"] == "k1"
    assert result.report["numbers"]["times this split was opened"] == 2
    for name in ("slices.json", "samples.json", "holes.parquet", "contamination.json",
                 "documents.parquet"):  # fmt: skip
        assert sha256_file(out / name) == sha256_file(folders["evaluate"] / name), name


def test_the_report_says_that_holes_were_not_trained(done: Done, tmp_path: Path) -> None:
    folders, results = done
    assert results["evaluate"].report["numbers"]["trained to fill holes"] is True
    inputs = {name: folders[name] for name in ("split", "save")}
    plain = SimpleNamespace(
        **{**vars(CONFIG), "train": CONFIG.train.model_copy(update={"fim_rate": 0.0})}
    )
    (tmp_path / "out").mkdir()
    result = evaluate.run(StageContext("evaluate", tmp_path / "out", inputs, plain, 7))
    assert result.report["numbers"]["trained to fill holes"] is False


def test_a_test_that_broke_off_has_opened_the_split(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, _ = done
    inputs = {name: folders[name] for name in ("split", "save")}
    out = tmp_path / "out"

    class Killed(Exception):
        pass

    def kill(folder: Path) -> Any:
        assert read_json(out / "access.json")["here"] == 1  # before the first byte is read
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(evaluate, "open_corpus", kill)
        run(evaluate, out, inputs)
    before = read_json(out / "access.json")["opened"]
    result = run(evaluate, out, inputs)
    assert read_json(out / "access.json")["here"] == 2
    assert result.report["numbers"]["times this split was opened"] == before + 1


def test_a_model_that_does_not_fit_is_refused(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gristmill.training import estimate

    folders, _ = done
    monkeypatch.setattr(estimate, "free_memory", lambda: 1000)
    result = run(design, tmp_path / "out", {"split": folders["split"]})
    assert not result.gates[0].passed
    assert "tokens_per_second" not in read_json(tmp_path / "out" / "design.json")


def test_a_loss_far_from_ln_v_is_refused(done: Done, tmp_path: Path) -> None:
    folders, _ = done
    loud = SimpleNamespace(initialize=InitializeConfig(method="normal", std=3.0))
    result = run(initialize, tmp_path / "out", folders, loud)
    assert not result.gates[0].passed
    levels = read_json(tmp_path / "out" / "variance.json")["levels"]
    assert len(levels) == 2 and levels[0]["activation"] == pytest.approx(9.0, rel=0.2)


def test_a_damaged_checkpoint_is_a_message(done: Done, tmp_path: Path) -> None:
    from gristmill.checkpoint.reload import logits_in_fresh_process

    folders, _ = done
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "config.json").write_bytes((folders["save"] / "model/config.json").read_bytes())
    data = (folders["save"] / "model/model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(ArtifactError, match=r"fresh process.*model\.safetensors"):
        logits_in_fresh_process(broken, np.zeros((1, 4), np.int32))


def test_without_holes_the_samples_go_on_with_texts(done: Done, tmp_path: Path) -> None:
    folders, _ = done
    inputs = {name: folders[name] for name in ("split", "save")}
    section = CONFIG.evaluate.model_copy(update={"holes": 0})
    result = run(
        evaluate, tmp_path / "out", inputs, SimpleNamespace(**{**vars(CONFIG), "evaluate": section})
    )
    samples = read_json(tmp_path / "out" / "samples.json")
    assert len(samples) == 5 and {s["kind"] for s in samples} == {"continuation"}
    for s in samples:
        text = file(int(s["path"][1:-3])).text
        assert text.startswith(s["prefix"] + s["truth"]) and s["completion"]
    assert "keys saved" not in result.summary
    assert read_json(tmp_path / "out" / "metrics.json")["holes"] == {"model": {}}
