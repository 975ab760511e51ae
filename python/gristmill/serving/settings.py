"""Tables `deploy`, `serve` and `update` of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gristmill.settings import Section


class DeployConfig(Section):
    """The deployed file."""

    dtype: Literal["f32", "bf16"] = Field(
        default="f32", description="type of the weights in the GGUF"
    )
    selftest: int = Field(
        default=4, ge=1, le=64, description="prompts whose tokens are kept in the file"
    )
    selftest_tokens: int = Field(default=16, ge=1, le=256, description="greedy tokens per prompt")
    name: str | None = Field(
        default=None, description="name in the file; the project's when left out"
    )
    licence: str = Field(
        default="", description="of the weights, for the card; empty: that of the training files"
    )
    contact: str = Field(default="", description="who answers for the model, for the cards")


class ServeConfig(Section):
    """Where `run --serve` listens; `gristmill serve` has the same as options."""

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=8080, ge=1, le=65535, description="TCP port")
    ctx: int | None = Field(
        default=None, ge=16, description="context in tokens; the model's by default"
    )


class UpdateConfig(Section):
    """How `gristmill update` goes on from the promoted model, and what its successor must reach."""

    margin: float = Field(
        default=0.02, description="upper end of candidate - deployed, bits per byte, newest files"
    )
    forgetting: float = Field(
        default=0.1, description="the same on the validation files the deployed model began with"
    )
    min_files: int = Field(
        default=8, ge=7, description="changed files; with fewer there is nothing to measure on"
    )
    test: float = Field(
        default=0.3, gt=0.0, le=0.7, description="share of the changed files, the newest, to test"
    )
    old: float = Field(
        default=0.5, ge=0.0, lt=1.0, description="share of old files in the text to train on"
    )
    epochs: float = Field(default=2.0, gt=0.0, le=1000.0, description="passes over that text")
    lr: float = Field(default=0.3, gt=0.0, le=10.0, description="rate, as a share of train.lr")
    accepted: bool = Field(
        default=True, description="train on answers with thumbs up; edited ones always"
    )
    characters: int = Field(
        default=2000, ge=0, description="of feedback: text kept before and after an answer"
    )
