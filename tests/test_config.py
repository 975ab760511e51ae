"""Configuration: what a user can get wrong is named, with what was given and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")

from hypothesis import given
from hypothesis import strategies as st

from gristmill import config
from gristmill.errors import ConfigError


def load(text: str, tmp_path: Path, **options: Any) -> config.Config:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return config.load(str(path), **options)


def test_recipe_is_valid_in_every_form() -> None:
    plain = config.load("code")
    quick = config.load("code", quick=True)
    longer = config.load("code", minutes=30)
    assert plain.project.gates == "stop"
    assert quick.project.gates == "record"
    assert quick.design.minutes < plain.design.minutes < longer.design.minutes < 30
    assert longer.design.depth > plain.design.depth


def test_defaults_are_the_recipe(tmp_path: Path) -> None:
    recipe = config.load("code")
    default = load("", tmp_path)
    assert default.train == recipe.train
    assert default.evaluate == recipe.evaluate
    assert default.deploy == recipe.deploy
    assert default.serve == recipe.serve


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[train]\nlrr = 1.0", ["train.lrr", "unknown key", "did you mean 'lr'", "allowed:"]),
        ("[trian]\nlr = 1.0", ["trian", "unknown key", "did you mean 'train'"]),
        ('[train]\nlr = "fast"', ["train.lr", "'fast' (text)", "number", "peak learning rate"]),
        ("[train]\nlr = -1.0", ["train.lr", "-1.0", "greater than 0"]),
        ("[train]\naccumulate = 1.5", ["train.accumulate", "1.5", "a whole number"]),
        ("[train]\nrecompute = 1", ["train.recompute", "1", "true or false"]),
        ('[train]\nschedule = "cosin"', ["train.schedule", "'cosin'", "did you mean 'cosine'"]),
        ("[train]\nwarmup = 0.9", ["train", "warmup 0.9 + decay 0.3"]),
        ("[train]\nbetas = [0.9]", ["train.betas"]),
        ("[design]\nheads = 6\nkv_heads = 4", ["heads 6 must be a multiple of kv_heads 4"]),
        ("train = 3", ["train", "3"]),
        ('[project]\nname = "Mine!"', ["project.name", "'Mine!'"]),
        ("[collect]\nlimmit = 3", ["collect.limmit", "did you mean 'limit'"]),
    ],
)
def test_mistake_is_named(text: str, said: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path)
    for part in said:
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load("[train]\nlr = 0.0\nfoo = 1\n[design]\ndepth = 0", tmp_path)
    assert len(str(caught.value).splitlines()) == 4


def test_file_problems(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        config.load(str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigError, match="did you mean 'code'"):
        config.load("cod")
    with pytest.raises(ConfigError, match="line 1"):
        load("[train\n", tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(str(tmp_path / "latin.toml"))
    with pytest.raises(ConfigError, match="cannot read"):
        folder = tmp_path / "folder.toml"
        folder.mkdir()
        config.load(str(folder))


def test_overrides_win(tmp_path: Path) -> None:
    changed = config.load("code", quick=True, overrides=["train.lr=1e-3", "project.name=mine"])
    assert changed.train.lr == 1e-3
    assert changed.project.name == "mine"
    listed = config.load("code", overrides=["train.betas=[0.8, 0.9]"])
    assert listed.train.betas == (0.8, 0.9)


@pytest.mark.parametrize("text", ["train.lr", "=3", ".lr=3", "train..lr=1"])
def test_malformed_override(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        config.load("code", overrides=[text])


def test_override_through_a_value_or_a_list() -> None:
    with pytest.raises(ConfigError, match="a value, not a table"):
        config.load("code", overrides=["train.lr.x=1"])
    with pytest.raises(ConfigError, match="is a list of"):
        config.load("code", overrides=["train.betas.7=1.0"])


def test_source_replaces_the_recipes_own(tmp_path: Path) -> None:
    found = config.resolved(config.load("code", path=str(tmp_path)))["collect"]["source"]
    assert len(found) == 1
    assert found[0]["path"] == str(tmp_path)
    with pytest.raises(ConfigError, match="no such file or folder"):
        config.load("code", path=str(tmp_path / "absent"))


@pytest.mark.parametrize("minutes", [0.0, -5.0, 1.0])
def test_too_few_minutes(minutes: float) -> None:
    with pytest.raises(ConfigError, match="allowed: 2 or more"):
        config.load("code", minutes=minutes)


def test_overlays_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either"):
        config.load("code", quick=True, minutes=10)
    with pytest.raises(ConfigError, match=r"no table \[quick\]"):
        load("", tmp_path, quick=True)


def test_minutes_and_steps_exclude_each_other(tmp_path: Path) -> None:
    """Steps win over minutes in design, so --minutes would change nothing and say nothing."""
    with pytest.raises(ConfigError, match=r"--minutes 30 and design.steps = 500 given"):
        load("[design]\nsteps = 500", tmp_path, minutes=30)
    with pytest.raises(ConfigError, match=r"design.steps = 7 given"):
        config.load("code", minutes=30, overrides=["design.steps=7"])


def test_quick_replaces_steps(tmp_path: Path) -> None:
    text = "[design]\nsteps = 50000\n[quick]\ndesign = { %s }"
    assert load(text % "minutes = 0.1", tmp_path, quick=True).design.steps is None
    assert load(text % "steps = 20, minutes = 0.1", tmp_path, quick=True).design.steps == 20
    assert load(text % "depth = 1", tmp_path, quick=True).design.steps == 50000
    assert load(text % "minutes = 0.1", tmp_path).design.steps == 50000


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    st.sampled_from(["train", "design", "collect", "clean", "split", "evaluate"]),
)
def test_any_value_anywhere_is_a_message(value: Any, table: str) -> None:
    """No input makes anything but a Config or a ConfigError."""
    for raw in ({table: value}, {table: {"lr": value, "depth": value, "source": value}}):
        try:
            config.check(raw, "test")
        except ConfigError as error:
            assert str(error)
