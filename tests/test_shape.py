"""Shapes and costs of a design, against sums done by hand."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pydantic")

from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import ConfigError
from gristmill.training.settings import DesignConfig
from gristmill.training.shape import cost, gpt2_config, llama_config, model_config


def test_default_by_hand() -> None:
    model = llama_config(DesignConfig(hidden_size=192), 2048)
    assert model["num_attention_heads"] * model["head_dim"] == 192
    assert model["intermediate_size"] == 512
    price = cost(model, 256, 4)
    layer = 4 * 192 * 192 + 3 * 192 * 512
    tables = 2 * 2048 * 192  # embedding and head
    assert price.parameters == tables + 3 * (layer + 2 * 192) + 192
    assert price.flops_per_token == 6 * (3 * layer + 2048 * 192) + 6 * 3 * 192 * 256


def test_gpt2_by_hand() -> None:
    """124,439,808 parameters: the published small one."""
    design = DesignConfig(preset="gpt2", depth=12, context=1024)
    model = model_config(design, 50257)
    assert (model["n_embd"], model["n_head"], model["n_inner"]) == (768, 12, None)
    assert model["tie_word_embeddings"]
    price = cost(model, 1024, 1)
    assert price.parameters == 124_439_808
    products = 12 * 12 * 768 * 768
    assert price.flops_per_token == 6 * (products + 50257 * 768) + 6 * 12 * 768 * 1024
    untied = model_config(DesignConfig(preset="gpt2", tie_word_embeddings=False), 300)
    assert (
        cost(untied, 256, 4).parameters - 2 * 300 * 192
        == 3 * (12 * 192 * 192 + 13 * 192) + (256 + 2) * 192
    )


@pytest.mark.parametrize(
    "keys", [{"kv_heads": 1}, {"head_dim": 32, "heads": 3}, {"rope_theta": 500.0}]
)
def test_what_gpt2_has_not_is_a_message(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"design.{next(iter(keys))} .* allowed for a gpt2"):
        gpt2_config(DesignConfig(hidden_size=192, **keys), 2048)


@pytest.mark.parametrize(("depth", "width"), [(1, 64), (3, 192), (6, 384), (8, 512), (12, 768)])
def test_the_dial(depth: int, width: int) -> None:
    assert llama_config(DesignConfig(depth=depth), 2048)["hidden_size"] == width


@pytest.mark.parametrize(
    "given_keys",
    [{"hidden_size": 7}, {"hidden_size": 30, "heads": 6, "head_dim": None}, {"kv_heads": 2}],
)
def test_misfits_are_messages(given_keys: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, ValueError), match=r"must be|allowed"):
        llama_config(DesignConfig(**given_keys), 2048)


@given(st.integers(1, 40), st.integers(1, 64), st.booleans())
def test_costs_grow_with_depth(depth: int, batch: int, tie: bool) -> None:
    small = llama_config(DesignConfig(depth=depth, tie_word_embeddings=tie), 1024)
    large = llama_config(DesignConfig(depth=depth + 8, tie_word_embeddings=tie), 1024)
    a, b = cost(small, 256, batch), cost(large, 256, batch)
    assert a.parameters < b.parameters
    assert a.flops_per_token < b.flops_per_token
    assert a.memory_bytes < b.memory_bytes


@given(st.integers(2, 40), st.integers(1, 64))
def test_recomputing_keeps_one_layer_and_the_inputs_of_all(depth: int, batch: int) -> None:
    """Of 4 hidden + 2 wide + 2 narrow + 3 intermediate floats, 8 hidden + 3 intermediate here."""
    model = llama_config(DesignConfig(depth=depth), 1024)
    hidden, saved = model["hidden_size"], 8 * model["hidden_size"] + 3 * model["intermediate_size"]
    plain, again = (cost(model, 256, batch, recompute).memory_bytes for recompute in (False, True))
    assert plain - again == 4 * 256 * batch * ((depth - 1) * saved - depth * hidden)
    assert again < plain
