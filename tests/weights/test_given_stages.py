"""Stages that begin from given weights: shape, first loss, added rows, what matched.json says."""

from __future__ import annotations

import math
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("duckdb")
pytest.importorskip("pydantic")

from foreign import STAR, TEXTS, foreign_folder, foreign_gpt2, foreign_tokenizer

import gristmill as gm
from gristmill import config
from gristmill.artifacts import StageContext, read_json, write_json
from gristmill.config import SaveConfig
from gristmill.data.adopting import adopt
from gristmill.data.document import DOCUMENT_SCHEMA, Document
from gristmill.data.loader import Loader
from gristmill.data.shards import Shard, write_shard
from gristmill.data.table import write_table
from gristmill.errors import ArtifactError, ConfigError
from gristmill.models import from_pretrained
from gristmill.models.adapters import load_adapter
from gristmill.pipeline import STAGES, Pipeline, find_stage
from gristmill.stages import design, initialize, save, train
from gristmill.training.settings import DesignConfig, InitializeConfig, LoraConfig, TrainConfig
from gristmill.training.shape import cost


def document(number: int) -> Document:
    text = TEXTS[number % 2].replace("one", f"part{number}")
    head = (f"{number:064x}", "src", f"f{number}.py", "area", "MIT", "test")
    return Document(*head, len(text), 1, 2, "utf-8", text, number)


class Texts:
    """Batches of the text the tokenizer was learned on, so that a few steps teach something."""

    def __init__(self, tokenizer: Any) -> None:
        self.ids = np.array(tokenizer.encode("".join(TEXTS)).ids, np.int32)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        at = np.random.default_rng(step).integers(0, len(self.ids) - 33, 4)
        rows = np.stack([self.ids[i : i + 33] for i in at])
        return rows[:, :-1].copy(), rows[:, 1:].copy()


def trained_folder(folder: Path, names: tuple[str, ...]) -> Path:
    foreign_folder(folder, names=names)
    model = from_pretrained(folder)
    settings = gm.TrainerConfig(steps=40, lr=1e-2, progress=False)
    gm.Trainer(model, Texts(foreign_tokenizer(names)), None, settings).fit()
    tokenizer = (folder / "tokenizer.json").read_bytes()
    says = (folder / "tokenizer_config.json").read_bytes()
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    (folder / "tokenizer_config.json").write_bytes(says)
    return folder


def write_split(folder: Path, model: Path) -> Path:
    """What stage split leaves behind of a given tokenizer."""
    adopted = adopt(model)
    folder.mkdir(parents=True)
    adopted.tokenizer.save(folder)
    write_json(folder / "adopted.json", {"given": adopted.given, "appended": adopted.appended})
    for name, some in {"train": range(8), "val": range(8, 12)}.items():
        files = [document(n) for n in some]
        ids = [[*adopted.tokenizer.encode(d.text), adopted.tokenizer.eos] for d in files]
        write_shard(folder / name, ids, adopted.tokenizer.vocab_size)
        schema = {**DOCUMENT_SCHEMA, "label_quality": "VARCHAR"}
        write_table(folder / name / "documents.parquet", schema, [(*astuple(d), "") for d in files])
    return folder


def run(root: Path, model: Path, training: TrainConfig | None = None) -> tuple[Path, Any]:
    """Stages design and initialize; returns the folder and the result of the latter."""
    settings: Any = SimpleNamespace(
        design=DesignConfig(context=32, batch=4, steps=5),
        initialize=InitializeConfig(**{"from": str(model)}),
        train=training or TrainConfig(),
    )
    folders = {"split": write_split(root / "split", model)}
    for stage in (design, initialize):
        name = stage.__name__.rsplit(".", 1)[-1]
        folders[name] = root / name
        folders[name].mkdir()
        result = stage.run(StageContext(name, folders[name], folders, settings, 7))
        assert len(result.summary) <= 60, result.summary
    return root, result


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A model with all special tokens: nothing to add."""
    root = tmp_path_factory.mktemp("known")
    model = trained_folder(root / "m", STAR)
    return model, *run(root, model)


def test_the_first_loss_is_the_sources(known: tuple[Path, Path, Any]) -> None:
    """The context is shorter; a model of rotary positions computes the same in it."""
    model, root, result = known
    data = Loader(Shard.open(root / "split" / "train"), 4, 32, 7)
    theirs = from_pretrained(model).token_losses(*data.batch(0)).mean()
    (gate,) = result.gates
    assert gate.passed and gate.bar == pytest.approx(2 * math.log(285))
    assert gate.value == pytest.approx(theirs, rel=1e-6)  # a mean of 128 losses, added in f32
    assert theirs < 3.0  # the model did learn, so that other weights would not give this


def test_every_weight_is_matched(known: tuple[Path, Path, Any]) -> None:
    model, root, _ = known
    facts = read_json(root / "initialize" / "matched.json")
    ours, theirs = from_pretrained(root / "initialize" / "model"), from_pretrained(model)
    names = [name for name, _ in theirs.named_parameters()]
    assert facts["matched"] == names and facts["resized"] == [] and facts["left"] == []
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert np.array_equal(p.numpy(), q.numpy()), name
    assert ours.config.max_position_embeddings == 32
    assert ours.config.eos_token_id == foreign_tokenizer().token_to_id("<eos>")


@pytest.mark.parametrize("tied", [True, False])
def test_added_rows_are_the_mean_of_the_given(tmp_path: Path, tied: bool) -> None:
    model = foreign_folder(tmp_path / "m", names=("<eos>",), tie_word_embeddings=tied)
    root, _ = run(tmp_path, model)
    facts = read_json(root / "initialize" / "matched.json")
    names = ["model.embed_tokens.weight", *([] if tied else ["lm_head.weight"])]
    assert [entry["name"] for entry in facts["resized"]] == names
    ours, theirs = from_pretrained(root / "initialize" / "model"), from_pretrained(model)
    for name in names:
        new, old = (m.state_dict()[name].numpy() for m in (ours, theirs))
        assert np.array_equal(new[: len(old)], old) and len(new) == len(old) + 4
        added = new[len(old) :]
        # noise: 1e-4.5 = 3.2e-5 of the spread, of 4 x 32 draws none is above 5 of that
        off = np.abs(added - old.mean(0)) / old.std(0)
        assert 0 < off.max() < 1.6e-4
        assert len(np.unique(added, axis=0)) == 4


def test_a_gpt2_keeps_its_first_positions(tmp_path: Path) -> None:
    """Tokens added, context cut: what the given model says of its own tokens stays."""
    model = foreign_gpt2(tmp_path / "m", names=("<eos>",))
    root, _ = run(tmp_path, model)
    facts = read_json(root / "initialize" / "matched.json")
    changes = {entry["name"]: (entry["from"], entry["to"]) for entry in facts["resized"]}
    assert changes == {
        "transformer.wte.weight": ([281, 32], [285, 32]),
        "transformer.wpe.weight": ([64, 32], [32, 32]),
    }
    ours, theirs = from_pretrained(root / "initialize" / "model"), from_pretrained(model)
    ids = np.arange(60, 92)[None]
    with gm.no_grad():
        mine, given = ours(ids).numpy(), theirs(ids).numpy()
    # the head's product is wider, which the sum of each of its columns does not see
    assert np.array_equal(mine[..., :281], given)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_adapter_through_train_and_save(tmp_path: Path, kind: str) -> None:
    """New tokens learn with it, since their rows are alike; design foresees what that costs."""
    make = {"llama": foreign_folder, "gpt2": foreign_gpt2}[kind]
    model = make(tmp_path / "m", names=("<eos>",))
    lora = TrainConfig(
        lora=LoraConfig(rank=4), lr=1e-2, eval_every=5, eval_batches=1, checkpoint_every=5
    )
    root, _ = run(tmp_path, model, lora)
    folders = {name: root / name for name in ("split", "design", "initialize")}
    write_json(root / "verdict.json", {"chosen": "last"})
    folders["validate"] = root
    settings: Any = SimpleNamespace(
        initialize=InitializeConfig(**{"from": str(model)}), train=lora, save=SaveConfig()
    )
    for stage in (train, save):
        name = stage.__name__.rsplit(".", 1)[-1]
        folders[name] = root / name
        folders[name].mkdir()
        result = stage.run(StageContext(name, folders[name], folders, settings, 7))
        assert all(gate.passed for gate in result.gates), result.gates
    _check_learned(root, kind)
    merged = from_pretrained(root / "initialize/model")
    load_adapter(merged, root / "save/adapter")
    ids = np.arange(60, 92)[None]
    with gm.no_grad():
        apart, together = merged(ids).numpy(), from_pretrained(root / "save/model")(ids).numpy()
    # sums of at most 128 products in 2 layers: a thousand roundings of the largest value
    assert np.abs(apart - together).max() <= 1000 * 2.0**-24 * np.abs(apart).max()
    learning = sum(p.size for p in merged.parameters() if p.requires_grad)
    facts = read_json(root / "design/design.json")
    states = 4 * facts["parameters"] + 16 * learning
    full = cost(facts["model"], 32, 4)
    assert facts["memory_bytes"] - states == full.memory_bytes - 16 * full.parameters


def _check_learned(root: Path, kind: str) -> None:
    """What save wrote differs from what was given in the adapted layers and the embedding."""
    before, after = (
        dict(from_pretrained(root / name).named_parameters())
        for name in ("initialize/model", "save/model")
    )
    changed = {n for n, p in after.items() if not np.array_equal(p.numpy(), before[n].numpy())}
    table = {"llama": "model.embed_tokens.weight", "gpt2": "transformer.wte.weight"}[kind]
    names = {"llama": ("q_proj", "v_proj"), "gpt2": ("c_attn",)}[kind]
    adapted = {n for n in after if n.split(".")[-2] in names and n.endswith("weight")}
    assert changed == {table} | adapted
    saved = read_json(root / "save/adapter/adapter_config.json")["modules_to_save"]
    assert set(saved) == {table.split(".")[-2], "lm_head"}


def test_padding_rows_take_the_tokens(tmp_path: Path) -> None:
    """Two rows to spare, four tokens to add: two more rows, and the spare ones begin anew."""
    model = foreign_folder(tmp_path / "m", names=("<eos>",), rows=283)
    root, _ = run(tmp_path, model)
    ours, theirs = from_pretrained(root / "initialize" / "model"), from_pretrained(model)
    new, old = (m.state_dict()["model.embed_tokens.weight"].numpy() for m in (ours, theirs))
    assert len(new) == 285 and np.array_equal(new[:281], old[:281])
    assert np.abs(new[281:] - old[:281].mean(0)).max() < 1e-4


def test_random_weights_do_not_pass(tmp_path: Path) -> None:
    model = foreign_folder(tmp_path / "m")
    loud = from_pretrained(model)
    loud.head.copy_(np.random.default_rng(1).standard_normal(loud.head.shape))
    loud.save_pretrained(tmp_path / "loud")
    (model / "model.safetensors").write_bytes((tmp_path / "loud/model.safetensors").read_bytes())
    _, result = run(tmp_path, model)
    assert not result.gates[0].passed


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    model = foreign_folder(tmp_path / "m")
    other = foreign_folder(tmp_path / "other", intermediate_size=64)
    (model / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match=r"mlp\.\w+_proj\.weight has shape.*take weights"):
        run(tmp_path, model)


def pipeline(root: Path, *overrides: str) -> Pipeline:
    return Pipeline(config.load("code", overrides=overrides), root)


def test_nothing_runs_where_the_model_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"initialize\.from.*no such file"):
        pipeline(tmp_path / "runs", f"initialize.from={tmp_path / 'absent'}").run()
    assert not list((tmp_path / "runs").glob(".stages/*"))


def test_a_recipes_shape_is_a_message(tmp_path: Path) -> None:
    model = foreign_folder(tmp_path / "m")
    with pytest.raises(ConfigError, match=r"design\.depth = 3 .*num_hidden_layers is 2"):
        pipeline(tmp_path / "runs", f"initialize.from={model}").run()


def test_a_changed_model_makes_other_keys(tmp_path: Path) -> None:
    model = foreign_folder(tmp_path / "m")
    plain, given = pipeline(tmp_path), pipeline(tmp_path, f"initialize.from={model}")

    def keys(some: Pipeline) -> dict[str, str]:
        return {name: some._key(find_stage(name))[0] for name in ("split", "design", "initialize")}

    before = keys(given)
    assert all(before[name] != key for name, key in keys(plain).items())
    assert keys(given) == before
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "model.safetensors").write_bytes(data)
    changed = {name for name, key in keys(given).items() if key != before[name]}
    assert changed == {"initialize"}
    config_file = model / "config.json"
    config_file.write_text(config_file.read_text() + " ")
    assert {name for name, key in keys(given).items() if key != before[name]} == set(before)
    assert given._key(STAGES[0]) == plain._key(STAGES[0])  # collect has nothing to do with it
