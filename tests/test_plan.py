"""`gristmill plan`: what is known is used, what is not is said."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("gristmill._C")

from gristmill import config
from gristmill.artifacts import write_json
from gristmill.plan import describe
from gristmill.training.estimate import LOOKS, resolve_dtype
from gristmill.training.shape import llama_config


def finished(root: Path, given: config.Config, key: str, pace: float, begun: str) -> None:
    """Leave behind a design of this shape that has measured `pace` seconds per step."""
    folder = root / ".stages" / f"design-{key}"
    folder.mkdir(parents=True)
    train = {"dtype": resolve_dtype("auto"), "accumulate": 1, "recompute": False}
    model = llama_config(given.design, given.split.vocab_size) | {"eos_token_id": 0}
    facts = {"model": model, "batch": 4, "context": 256, "train": train, "seconds_per_step": pace}
    write_json(folder / "design.json", facts)
    write_json(folder / "manifest.json", {"begun": begun})


def training(given: config.Config, root: Path) -> str:
    """Return the plan from the length of training on, in one line."""
    return " ".join(describe(given, root).partition("\ntraining")[2].split())


@pytest.mark.parametrize("steps", [None, 600])
def test_time_follows_from_a_finished_design_of_the_shape(
    steps: int | None, tmp_path: Path
) -> None:
    given = config.load("code", overrides=[f"design.steps={steps}"] if steps else [])
    assert "measured in design" in training(given, tmp_path)
    assert "measured in design" in training(given, tmp_path / "absent")
    other = config.load("code", overrides=["design.depth=5"])
    finished(tmp_path, other, "1", 9.0, "2026-03-01")
    assert "measured in design" in training(given, tmp_path)
    finished(tmp_path, given, "2", 0.5, "2026-01-01")
    finished(tmp_path, given, "3", 0.1, "2026-02-01")  # the newest counts
    said = training(given, tmp_path)
    if steps:  # 600 x 0.1 s, and the share of looks
        assert "600 steps of 1,024 tokens: 614,400 tokens" in said
        assert f"{1.0 / (1.0 - LOOKS):.1f} minutes at the speed measured 2026-02-01" in said
    else:  # 3.5 minutes less the share of looks, at 0.1 s
        assert given.design.minutes == 3.5
        assert f"{2100 * (1.0 - LOOKS):,.0f} steps" in said
        assert "3.5 minutes at the speed measured 2026-02-01" in said
