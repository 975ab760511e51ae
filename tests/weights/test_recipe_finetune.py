"""The recipe finetune-code: says what to give, takes its shape from it, asks for no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("gguf")
pytest.importorskip("pydantic")

from foreign import foreign_folder

from gristmill import config
from gristmill.errors import ConfigError
from gristmill.plan import describe

RECIPE = "finetune-code"


def test_without_a_model_one_line_says_what_to_give() -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(RECIPE)
    (line,) = str(caught.value).splitlines()[1:]
    assert "--set initialize.from=PATH" in line and "GGUF" in line


@pytest.mark.parametrize("options", [{}, {"quick": True}, {"minutes": 20}])
def test_with_a_model_every_form_is_valid(options: dict[str, float]) -> None:
    given = config.load(RECIPE, overrides=["initialize.from=m"], **options)  # type: ignore[arg-type]
    assert given.initialize.from_ == "m"
    assert given.train.lr <= config.load("code").train.lr / 10
    again = config.check(config.resolved(given), "resolved")
    assert again == given  # what a run's record holds is read back as it was


def test_plan_has_the_models_shape(tmp_path: Path) -> None:
    shape = {"max_position_embeddings": 256, "hidden_size": 512, "intermediate_size": 1024}
    model = foreign_folder(tmp_path / "m", names=("<eos>",), **shape)
    given = config.load(RECIPE, overrides=[f"initialize.from={model}"])
    said = describe(given, tmp_path / "runs")
    assert "2 layers, width 512, 2 heads of 16" in said and "vocabulary 285" in said
    lora = config.load(RECIPE, overrides=[f"initialize.from={model}", "train.lora.rank=2"])
    whole, part = (
        int(re.search(r"(\d+) MB", text)[1]) for text in (said, describe(lora, tmp_path))
    )
    # 3.4 million weights take 12 bytes less each, 0.15 million of the embedding learn as before
    assert whole - part == pytest.approx(12 * 3.4 - 16 * 0.15, abs=1.0)


def test_adapters_need_a_model() -> None:
    with pytest.raises(ConfigError, match=r"train\.lora\.rank = 4 given.*initialize\.from"):
        config.load("code", overrides=["train.lora.rank=4"])
