"""Spaces of settings: what may be searched, how it is written, and what each mistake is told."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydantic")

from gristmill import config
from gristmill.config import Config
from gristmill.errors import ConfigError
from gristmill.selection.importance import explained, importance
from gristmill.selection.space import Range, grid, read_space
from gristmill.selection.toml import toml_text


def make(overrides: Sequence[str]) -> Config:
    return config.load("code", overrides=overrides)


def read(tmp_path: Path, text: str) -> list[Range]:
    path = tmp_path / "space.toml"
    path.write_text(text)
    return read_space(str(path), make)


def test_three_kinds_of_ranges_in_three_spellings(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        '"train.lr" = { low = 1e-4, high = 1e-2, log = true }\n'
        "train.warmup = { low = 0, high = 0.1 }\n"
        "[design]\ndepth = { low = 1, high = 4 }\n"
        '[train.schedule]\nvalues = ["wsd", "cosine"]\n',
    )
    lr, warmup, schedule, depth = found
    assert (lr.key, lr.log, lr.whole) == ("train.lr", True, False)
    assert (warmup.key, warmup.low, warmup.whole) == ("train.warmup", 0.0, False)
    assert (schedule.key, schedule.values) == ("train.schedule", ("wsd", "cosine"))
    assert (depth.key, depth.whole, depth.points()) == ("design.depth", True, [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"train.lrr" = { values = [1e-3] }', r"train\.lrr: unknown key, did you mean 'lr'"),
        ('"trian.lr" = { values = [1e-3] }', r"trian: unknown key, did you mean 'train'"),
        ('"train.lr" = { values = ["fast"] }', r"train\.lr: given 'fast' \(text\); allowed: a num"),
        ('"train.lr" = { low = 0.1, high = 2.0 }', r"train\.lr: given 2\.0"),
        ('"design.depth" = { low = 1.0, high = 4.0 }', r"design\.depth: given 1\.0"),
        ('"train.lr" = { low = 1e-4, hihg = 1.0 }', "unknown 'hihg', did you mean 'high'"),
        ('"train.lr" = { low = 1e-2, high = 1e-4 }', "allowed: low below high"),
        ('"train.lr" = { low = 0.0, high = 0.1, log = true }', "log needs low above 0"),
        ('"train.lr" = { low = 0.1, high = 0.2, step = 0.0 }', "allowed: above 0"),
        ('"train.lr" = { low = true, high = 0.2 }', "allowed: numbers"),
        ('"train.lr" = { values = [] }', "values is a list"),
        ('"train.lr" = { values = [1e-3, 0.001] }', "stands twice"),
        ('"train.lr" = 3e-4', "allowed: { low ="),
        ('"train" = { values = [1] }', "train: given 1"),
        ('"evaluate.stride" = { values = [1] }', "read after validation.*allowed: keys of the tab"),
        ('"serve.port" = { values = [1] }', "read after validation"),
        ('"split.val" = { values = [0.1] }', r"which files.*split\.vocab_size"),
        ('"clean.step.0.form" = { values = ["NFC"] }', "which files"),
        ('"validate.stride" = { values = [1] }', "how trials are measured"),
        ('"project.seed" = { values = [1] }', "another seed"),
        ("", "is empty"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_the_tokenizer_may_be_searched(tmp_path: Path) -> None:
    (one,) = read(tmp_path, '"split.vocab_size" = { values = [300, 400] }')
    assert one.values == (300, 400)


def test_what_only_fails_together_is_left_to_the_trial(tmp_path: Path) -> None:
    """heads = 5 does not divide the recipe's width of 192; with another width it would."""
    read(tmp_path, '"design.heads" = { values = [4, 5] }\n"design.hidden_size" = {values=[160]}')


def test_grid_is_all_points(tmp_path: Path) -> None:
    ranges = [Range("a.b", values=("x", "y")), Range("c.d", low=0.5, high=1.0, step=0.25)]
    assert grid(ranges) == [{"a.b": a, "c.d": c} for a in "xy" for c in (0.5, 0.75, 1.0)]
    with pytest.raises(ConfigError, match=r"c\.d: a grid needs points"):
        grid([Range("c.d", low=0.5, high=1.0)])


def test_a_configuration_comes_back_from_its_toml() -> None:
    for quick in (False, True):
        loaded = config.load("code", quick=quick, overrides=["project.name=x-1", "train.lr=1e-5"])
        text = toml_text(loaded.model_dump(mode="json", by_alias=True))
        assert config.check(tomllib.loads(text), "text") == loaded
    odd = {"a": {'k"e y': 'q"\\\n\x7f\té', "list": [1, [2.5, True]], "none": None, "empty": {}}}
    assert tomllib.loads(toml_text(odd)) == {
        "a": {k: v for k, v in odd["a"].items() if v is not None}
    }


def test_importance_is_0_for_noise_and_1_for_what_decides() -> None:
    """Of a setting that decides alone every rank lies in its own group: B/T is at its largest."""
    rng = np.random.default_rng(0)
    figures = [*(1.0 + 0.01 * rng.random(20)), *(2.0 + 0.01 * rng.random(20))]
    kinds = ["a"] * 20 + ["b"] * 20
    noise = [repr(rng.integers(2)) for _ in range(40)]
    # two groups of ranks 0..19 and 20..39: B/T = 3/4 (1 + 1/(n^2-1)), n = 40
    assert explained(kinds, figures) == pytest.approx(1 - (1 - 0.75 * 1600 / 1599) * 39 / 38)
    assert explained(noise, figures) < 0.15
    assert explained(["a"] * 40, figures) == 0.0
    values = [{"x": kind, "y": rate} for kind, rate in zip(kinds, rng.random(40), strict=True)]
    shares = importance([("y", False), ("x", True)], values, figures)
    assert list(shares) == ["x", "y"]
    assert importance([("x", True)], values[:4], figures[:4]) == {}
