"""Tables collect, clean, annotate and split: defaults are the recipe, mistakes are named."""

from __future__ import annotations

import tomllib
import typing
from importlib import resources
from typing import Any

import pytest

pytest.importorskip("pydantic")

from pydantic import ValidationError

from gristmill.data.collect_settings import (
    EnvironmentSource,
    HttpSource,
    MixConfig,
    RowsSource,
    Source,
)
from gristmill.data.settings import AnnotateConfig, CleanConfig, CollectConfig, SplitConfig
from gristmill.settings import Section

SECTIONS: dict[str, type[Section]] = {
    "collect": CollectConfig,
    "clean": CleanConfig,
    "annotate": AnnotateConfig,
    "split": SplitConfig,
}


def recipe() -> dict[str, Any]:
    text = (resources.files("gristmill") / "recipes" / "code.toml").read_text("utf-8")
    return tomllib.loads(text)


@pytest.mark.parametrize("name", SECTIONS)
def test_defaults_are_the_recipe(name: str) -> None:
    section = SECTIONS[name]
    assert section.model_validate(recipe()[name]) == section()


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_is_described(name: str) -> None:
    for key, field in SECTIONS[name].model_fields.items():
        assert field.description, f"{name}.{key}"


def test_every_key_of_a_source_is_described() -> None:
    sources = typing.get_args(typing.get_args(Source)[0])
    assert {HttpSource, RowsSource, EnvironmentSource} <= set(sources)
    for kind in (*sources, MixConfig):
        for key, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{key}"


FILES = {"use": "files", "path": "x", "licence": "MIT", "why": "mine"}


@pytest.mark.parametrize(
    ("name", "table", "said"),
    [
        ("collect", {"source": []}, "at least 1"),
        ("collect", {"source": [{**FILES, "licence": ""}]}, "licence"),
        ("collect", {"source": [{k: v for k, v in FILES.items() if k != "why"}]}, "why"),
        ("collect", {"source": [{**FILES, "use": "web"}]}, "'files', 'stdlib'"),
        ("collect", {"source": [{**FILES, "max_bytes": "many"}]}, "max_bytes"),
        ("collect", {"source": [{"use": "stdlib", "licence": "PSF-2.0"}]}, "why"),
        ("collect", {"max_faulty": 1.5}, "less than or equal to 1"),
        ("clean", {"step": [{"use": "near", "permutations": 100}]}, "multiple of 16"),
        ("clean", {"step": [{"use": "near", "threshold": 0.1}]}, "0.3"),
        ("clean", {"step": [{"use": "private", "rules": ["mail"]}]}, "email"),
        (
            "clean",
            {"step": [{"use": "quantile", "name": "a", "column": "bytes", "at": [1.0]}]},
            "1",
        ),
        (
            "clean",
            {"step": [{"use": "quantile", "name": "a", "column": "bytes"}] * 2},
            "two quantile steps",
        ),
        ("annotate", {"task": "none"}, "needs a reason"),
        ("split", {"val": 0.45, "test": 0.45}, "leave less than 0.1"),
        ("split", {"gap": 3.0}, 'by = "time"'),
        ("split", {"by": "time", "stratify": "area"}, 'stratify "area" given with by = "time"'),
        ("split", {"vocab_size": 260}, "261"),
    ],
)
def test_mistakes_are_named(name: str, table: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("(", r"\(")):
        SECTIONS[name].model_validate(table)
