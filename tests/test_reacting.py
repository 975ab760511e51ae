"""validate.react on real stages: where the verdict asks for it a gentler training is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_run import write_config, write_source

pytest.importorskip("gristmill._C")
pytest.importorskip("duckdb")
pytest.importorskip("pydantic")
pytest.importorskip("tokenizers")
pytest.importorskip("matplotlib")

from gristmill import reacting
from gristmill.artifacts import read_json
from gristmill.config import Config, load
from gristmill.pipeline import Options, Pipeline
from gristmill.reporting import write_report


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = write_config(tmp_path / "tiny.toml", write_source(tmp_path / "source"))
    return load(str(file), overrides=["validate.react=true"])


def test_a_change_is_checked_as_the_file_is(config: Config) -> None:
    other = reacting.changed(config, {"train.dropout": 0.1, "design.steps": 50})
    assert (other.train.dropout, other.design.steps) == (0.1, 50)
    assert other.train.lr == config.train.lr


def test_rounds_share_the_data_and_the_better_run_goes_on(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict is forced: so small a model learns nothing by heart."""
    real = reacting.read_json

    def forced(path: Path) -> Any:
        found = real(path)
        if path.name == "verdict.json":
            found["overfitting"]["kind"] = "overfitting"
        return found

    monkeypatch.setattr(reacting, "read_json", forced)
    said: list[str] = []
    ran: list[str] = []

    def note(done: Any) -> None:
        if not done.skipped:
            ran.append(done.stage.name)

    options = Options(on_done=note, on_report=write_report)
    run = reacting.run_reacting(config, tmp_path / "runs", options, said.append)
    rounds = read_json(run.folder / reacting.REACTION)
    assert said[0] == (
        "validate: overfitting; again with train.dropout = 0.1, train.weight_decay = 0.2"
    )
    assert run.done[-1].stage.name == "deploy"
    assert ran.count("collect") == ran.count("split") == 1
    assert ran.count("train") == 1 + len(rounds)
    assert ran.count("evaluate") == 1  # the test split is sealed until the choice is made
    assert "Trained again" in (run.folder / "report.html").read_text()
    kept = [one for one in rounds if one["kept"]]
    assert all(one["difference"]["value"] < 0 for one in kept)
    assert len(rounds) == 2 or not rounds[-1]["kept"]
    chosen = read_json(run.folder / "run.json")["config"]["train"]
    assert chosen["dropout"] == (kept[-1]["changes"]["train.dropout"] if kept else 0.0)


def test_nothing_is_trained_again_without_a_reason(config: Config, tmp_path: Path) -> None:
    options = Options(until="save")
    run = reacting.run_reacting(config, tmp_path / "runs", options, pytest.fail)
    assert read_json(run.folder / reacting.REACTION) == []
    assert run.done[-1].stage.name == "save"
    assert Pipeline(config, tmp_path / "runs", options).run().folder == run.folder
