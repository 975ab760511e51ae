"""Stages 4 to 11 on conversations: loss on answers, the same bytes for all methods, the template in
every file that leaves.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gristmill._C")
pytest.importorskip("duckdb")
pytest.importorskip("pydantic")
pytest.importorskip("tokenizers")
pytest.importorskip("gguf")

from gristmill.artifacts import Result, StageContext, read_json, write_json
from gristmill.config import ProjectConfig, SaveConfig
from gristmill.data import chat_tokens
from gristmill.data.annotation import LABEL_SCHEMA
from gristmill.data.conversation import text_of
from gristmill.data.document import Document, write_documents
from gristmill.data.settings import ChatConfig, SplitConfig
from gristmill.data.shards import Shard
from gristmill.data.table import read_table, write_table
from gristmill.data.tokenizer import Tokenizer
from gristmill.errors import ConfigError
from gristmill.evaluation.settings import EvaluateConfig
from gristmill.serving.settings import DeployConfig
from gristmill.stages import deploy, design, evaluate, initialize, save, split, train, validate
from gristmill.training.settings import DesignConfig, InitializeConfig, TrainConfig, ValidateConfig

STAGES = (split, design, initialize, train, validate, save, evaluate, deploy)
NAMES = ("mill", "river", "stone", "flour", "wheel", "bridge", "grain", "bread")
CONFIG: Any = SimpleNamespace(
    project=ProjectConfig(name="chat"),
    split=SplitConfig(
        vocab_size=320, min_bytes=100, chat=ChatConfig(template="chatml", max_tokens=64)
    ),
    design=DesignConfig(depth=1, hidden_size=32, context=64, batch=4, steps=60),
    initialize=InitializeConfig(),
    train=TrainConfig(
        lr=5e-3, eval_every=20, eval_batches=2, checkpoint_every=20, fim_rate=0.0, accumulate=2
    ),
    validate=ValidateConfig(documents=5, stride=32, bootstrap=100),
    save=SaveConfig(),
    evaluate=EvaluateConfig(
        documents=6, stride=32, max_tokens=24, bootstrap=100, samples=4, answers=5
    ),
    deploy=DeployConfig(selftest=2),
)


def talk(number: int) -> Document:
    name = NAMES[number % len(NAMES)]
    question = f"What is {name} number {number * 37 % 101}?"
    long = " It stands by the old water." * (20 if number == 3 else number % 3)
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": f"The {name} is a part of the mill.{long}"},
    ]
    head = (f"{number:064x}", "s", f"a.jsonl#{number}.messages", ".", "MIT", "t", 9, 1, 1, "utf-8")
    return Document(*head, text_of(messages), number)


def run(stage: Any, out: Path, inputs: dict[str, Path], config: Any = CONFIG) -> Result:
    out.mkdir(parents=True, exist_ok=True)
    name = stage.__name__.rsplit(".", 1)[-1]
    result: Result = stage.run(StageContext(name, out, inputs, config, 7))
    assert len(result.summary) <= 70, result.summary
    json.dumps(result.report, allow_nan=False)
    for gate in result.gates:
        assert (out / gate.file).is_file()
    for table in result.report.get("tables", []):
        assert all(len(row) == len(table["columns"]) for row in table["rows"]), table["title"]
    return result


def begin(root: Path) -> dict[str, Path]:
    clean, annotate = root / "clean", root / "annotate"
    for folder in (clean, annotate):
        folder.mkdir()
    write_documents(clean / "documents.parquet", [talk(n) for n in range(96)])
    write_json(clean / "transforms.json", [])
    write_table(annotate / "labels.parquet", LABEL_SCHEMA, [])
    return {"clean": clean, "annotate": annotate}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Result]]:
    root = tmp_path_factory.mktemp("run")
    folders, results = begin(root), {}
    for stage in STAGES:
        name = stage.__name__.rsplit(".", 1)[-1]
        folders_out = root / f"{name}-1"
        results[name] = run(stage, folders_out, folders)
        folders[name] = folders_out
    return folders, results


Done = tuple[dict[str, Path], dict[str, Result]]


def test_split_masks_and_lists(done: Done) -> None:
    folders, results = done
    facts = read_json(folders["split"] / "chat.json")
    assert (facts["template"], facts["too_long"]) == ("chatml", "leave out")
    assert [row["path"] for row in facts["left_out"]] == ["a.jsonl#3.messages"]
    assert results["split"].gates[1].passed  # every text comes back from its tokens
    shard, tokenizer = Shard.open(folders["split"] / "train"), Tokenizer.load(folders["split"])
    assert shard.mask is not None and 0 < shard.mask.sum() < len(shard.tokens)
    said = tokenizer.decode(shard.doc(0)[shard.counts(0)])
    assert said.startswith("The ") and said.endswith("<|im_end|>")


def test_too_long_ones_are_listed_once_however_often_they_are_read(tmp_path: Path) -> None:
    folders = begin(tmp_path)
    (tmp_path / "collect").mkdir()
    repeats = {"s": {f"a.jsonl#{number}.messages": 3 for number in range(96)}}
    write_json(tmp_path / "collect" / "mixture.json", {"repeats": repeats})
    run(STAGES[0], tmp_path / "split", {**folders, "collect": tmp_path / "collect"})
    facts = read_json(tmp_path / "split" / "chat.json")
    assert [row["path"] for row in facts["left_out"]] == ["a.jsonl#3.messages"]


def test_model_and_baselines_are_measured_on_the_same_bytes(done: Done) -> None:
    folders, results = done
    (gate,) = [g for g in results["evaluate"].gates if g.name == "bytes counted"]
    assert gate.passed
    texts = [row[0] for row in read_table(folders["split"] / "test/documents.parquet", ["text"])]
    answers = [t.partition("<|im_start|>assistant\n")[2].removesuffix("<|im_end|>") for t in texts]
    sizes = [row[0] for row in read_table(folders["evaluate"] / "documents.parquet", ["bytes"])]
    assert set(sizes) <= {len(a) for a in answers}
    rows = read_table(folders["evaluate"] / "documents.parquet", ["bits", "ngram", "bz2", "xz"])
    assert np.isfinite(rows).all()


def test_answers_are_measured_beside_others(done: Done) -> None:
    folders, results = done
    metrics = read_json(folders["evaluate"] / "metrics.json")
    assert set(metrics["answers"]) == {"model", "n-gram", "answer of the nearest question"}
    for figures in metrics["answers"].values():
        assert figures["answers"] == 5 and 0 <= figures["overlap"]["value"] <= 1
    rows = read_table(folders["evaluate"] / "answers.parquet", ["method", "truth", "overlap"])
    assert len(rows) == 15 and all(truth.startswith("The ") for _, truth, _ in rows)
    samples = read_json(folders["evaluate"] / "samples.json")
    assert len(samples) == 4 and {s["kind"] for s in samples} == {"answer"}
    assert all(s["prefix"].startswith("What is ") and s["prefix"].endswith("? ") for s in samples)
    titles = [t["title"] for t in results["evaluate"].report["tables"]]
    assert "Answers, with intervals" in titles and not any("Holes" in t for t in titles)
    assert metrics["holes"] == {"model": {}}


def test_the_template_is_in_every_file_that_leaves(done: Done) -> None:
    transformers = pytest.importorskip("transformers")
    from gristmill import _C
    from gristmill.serving.chat_format import chat_format

    folders, _ = done
    folder = folders["save"] / "model"
    tokenizer = Tokenizer.load(folder)
    end = tokenizer.marks["<|im_end|>"]
    assert read_json(folder / "generation_config.json")["eos_token_id"] == [end, tokenizer.eos]
    messages = [{"role": "user", "content": "What is mill?"}]
    theirs = transformers.AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    model = _C.Model(str(folders["deploy"] / "model.gguf"), True)
    assert model.metadata["gristmill.chat.template"] == "chatml"
    assert model.metadata["tokenizer.chat_template"] == chat_tokens.jinja_of("chatml")
    format = chat_format(model)
    assert format is not None and format.stops == {end, tokenizer.eos}
    assert format.ids(model, messages) == list(theirs)


def test_conversations_have_no_holes(done: Done, tmp_path: Path) -> None:
    folders, _ = done
    inputs = {name: folders[name] for name in ("split", "design", "initialize")}
    section = CONFIG.train.model_copy(update={"fim_rate": 0.5})
    config = SimpleNamespace(**{**vars(CONFIG), "train": section})
    with pytest.raises(ConfigError, match=r"train.fim_rate = 0.5 given for conversations"):
        run(train, tmp_path / "out", inputs, config)


def test_two_runs_give_the_same_shards(done: Done, tmp_path: Path) -> None:
    folders, _ = done
    run(split, tmp_path / "again", begin(tmp_path))
    for file in ("train/tokens.bin", "train/mask.bin", "chat.json", "tokenizer.json"):
        assert (tmp_path / "again" / file).read_bytes() == (folders["split"] / file).read_bytes()
