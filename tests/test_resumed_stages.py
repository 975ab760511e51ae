"""Stages that several processes worked on: what is counted, what is swept, what may go on."""

from __future__ import annotations

import sys
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")

import fake_stages

from gristmill import energy, pipeline, runs
from gristmill.artifacts import (
    Result,
    StageContext,
    read_json,
    write_json,
)
from gristmill.errors import ArtifactError
from gristmill.pipeline import Options, Pipeline


def train_of(root: Path, body: Any, dtype: str = "f32") -> Pipeline:
    """A pipeline of design and a resumable train that calls `body`."""
    config: Any = fake_stages.FakeConfig()

    def design(ctx: StageContext) -> Result:
        write_json(ctx.out / "design.json", {"train": {"dtype": dtype}})
        return Result("design")

    def train(ctx: StageContext) -> Result:
        body(ctx)
        write_json(ctx.out / "out.json", 1)
        return Result("trained")

    for name, function in (("design", design), ("train", train)):
        module: Any = types.ModuleType(f"fakestages.{name}")
        module.run = function
        sys.modules[module.__name__] = module
    real = {stage.name: stage for stage in pipeline.STAGES}
    stages = [replace(real[name], module=f"fakestages.{name}") for name in ("design", "train")]
    return Pipeline(config, root, Options(), tuple(replace(s, reads=()) for s in stages))


def killed(ctx: StageContext) -> None:
    time.sleep(0.2)
    raise KeyboardInterrupt


def test_a_resumed_stage_counts_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joules = iter(range(1, 100))
    monkeypatch.setattr(
        energy.Meter, "stop", lambda self: {"joules": float(next(joules)), "why": "fake"}
    )
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_of(tmp_path, killed).run()
    (spent,) = (read_json(p) for p in tmp_path.glob(".stages/train-*.json"))
    done = train_of(tmp_path, lambda ctx: time.sleep(0.1)).run().done[-1]
    assert 0.5 <= done.manifest["seconds"] < 5
    assert done.manifest["begun"] == spent["begun"]
    assert done.manifest["energy"]["joules"] > spent["energy"]["joules"] > 0
    assert not list(tmp_path.glob(".stages/train-*.json"))


def test_a_killed_stage_has_written_what_it_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 lets nobody write: what is counted stands on the disk from the last progress on."""
    monkeypatch.setattr(runs, "SAVE_SECONDS", 0.0)
    seen: list[float] = []

    def body(ctx: StageContext) -> None:
        time.sleep(0.2)
        ctx.progress("step")
        (path,) = tmp_path.glob(".stages/train-*.json")
        seen.append(read_json(path)["seconds"])

    train_of(tmp_path, body).run()
    assert seen[0] >= 0.2


def test_half_written_records_are_swept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_of(tmp_path, killed).run()
    left = tmp_path / ".stages" / ".train-x.partial.json.abc.gristmill-tmp"
    left.write_text("{")
    train_of(tmp_path, lambda ctx: None).run()
    assert sorted(p.name.partition("-")[0] for p in (tmp_path / ".stages").iterdir()) == [
        "design",
        "train",
    ]


def test_energy_is_estimated_where_that_of_one_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guess = {"joules": 2.0, "estimated": True, "method": "estimate", "why": "guessed"}
    known = {"joules": 5.0, "estimated": False, "method": "RAPL", "why": "measured"}
    monkeypatch.setattr(energy.Meter, "stop", lambda self: guess)
    with pytest.raises(KeyboardInterrupt):
        train_of(tmp_path, killed).run()
    monkeypatch.setattr(energy.Meter, "stop", lambda self: known)
    spent = train_of(tmp_path, lambda ctx: None).run().done[-1].manifest["energy"]
    assert spent == {**guess, "joules": 7.0}


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_bf16_goes_on_only_under_the_same_table(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """f32 has the same bits under every table, bf16 under one."""
    monkeypatch.setattr(pipeline, "_table", lambda: "avx512bf16")
    with pytest.raises(KeyboardInterrupt):
        train_of(tmp_path, killed, dtype).run()
    monkeypatch.setattr(pipeline, "_table", lambda: "avx2")
    again = train_of(tmp_path, lambda ctx: None, dtype)
    if dtype == "f32":
        assert again.run().done[-1].manifest["machine"]["table"] == "avx2"
        return
    with pytest.raises(ArtifactError, match="GRISTMILL_ISA=avx512bf16") as caught:
        again.run()
    assert "avx2" in str(caught.value) and "train-" in str(caught.value)
    monkeypatch.setattr(pipeline, "_table", lambda: "avx512bf16")
    done = train_of(tmp_path, lambda ctx: None, dtype).run().done[-1]
    assert done.manifest["machine"]["table"] == "avx512bf16"
    monkeypatch.setattr(pipeline, "_table", lambda: "avx2")
    assert train_of(tmp_path, killed, dtype).run().done[-1].skipped  # done is done
